"""The command ``birthday explain``: what came of a user's occasions of a year, and why."""

import sys
from datetime import date

import click

from birthday.cli.command import errors
from birthday.cli.database import database_settings, run
from birthday.cli.render.explain import print_explained, write_json
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.operations.explain import Explained
from birthday.wiring.database import open_database
from birthday.wiring.scheduler import make_explainer


@click.command()
@click.argument("user", metavar="USER")
@click.option("--year", type=click.IntRange(1, date.max.year), help="The year to explain.  [default: this year]")
@click.option("--type", "message_type", metavar="TYPE", help="Only this type, such as birthday.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def explain(user: str, year: int | None, message_type: str | None, *, as_json: bool) -> None:
    """Explain why USER got a message, or gets none.

    USER is an id, an e-mail address or an externalId. For each date of the user it prints which date, zone, rules and
    states decided, with SEND_AT and LEAP_DAY as they are set here. It changes nothing.
    """
    with errors():
        explained = run(_explain(database_settings(), user, year, message_type))
    (write_json if as_json else print_explained)(explained, sys.stdout)


async def _explain(settings: Settings, user: str, year: int | None, message_type: str | None) -> Explained:
    clock = SystemClock()
    async with open_database(settings, clock) as pool:
        return await make_explainer(settings, pool).explain(user, year, message_type, clock.now())
