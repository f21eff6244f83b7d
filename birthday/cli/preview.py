"""The command ``birthday preview``: when somebody would be greeted. It needs no database."""

from datetime import UTC, datetime
from itertools import islice

import click

from birthday.cli.command import errors
from birthday.cli.render.preview import print_preview, write_json
from birthday.cli.values import parse_day
from birthday.config import load_settings
from birthday.core.dates import parse_birthday
from birthday.core.occasion import LAST_YEAR, birthdays_from
from birthday.core.zone import load_zone


@click.command()
@click.option("--date-of-birth", required=True, metavar="DATE", help="YYYY-MM-DD, or --MM-DD without a year.")
@click.option(
    "--timezone", "zone", required=True, metavar="ZONE", help="IANA name, or a fixed offset such as UTC+07:00."
)
@click.option("--from", "first", metavar="DATE", help="First local date to look at.  [default: today]")
@click.option("--count", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many birthdays.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of date, local, utc, age.")
def preview(date_of_birth: str, zone: str, first: str | None, count: int, *, as_json: bool) -> None:
    """Show when a person would be greeted.

    For each of the next birthdays it prints the local date and time, and the instant in UTC, with SEND_AT and LEAP_DAY
    as they are set here.
    """
    with errors():
        settings = load_settings()
        loaded = load_zone(zone)
        born = parse_day("--date-of-birth", date_of_birth, parse_birthday)
        day = parse_day("--from", first) if first else datetime.now(UTC).astimezone(loaded).date()
        occasions = list(islice(birthdays_from(born, loaded, settings.rules, day), count))
    if len(occasions) < count:
        click.echo(f"birthday: no birthday after the year {LAST_YEAR} can be computed", err=True)
    write = write_json if as_json else print_preview
    write(occasions, born, loaded)
