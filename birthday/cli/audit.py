"""The command ``birthday audit``: whether everybody who was due was greeted once, and at the right time."""

import sys
from datetime import date

import click

from birthday.cli.command import COULD_NOT_LOOK, errors
from birthday.cli.database import checked_pool, database_settings, run
from birthday.cli.render.audit import LISTABLE, run_audit
from birthday.cli.values import parse_day
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.core.audit import FAILABLE, Finding
from birthday.operations.audit import Audit
from birthday.wiring.scheduler import make_auditor


@click.command()
@click.option("--from", "first", required=True, metavar="DATE", help="First day, UTC.")
@click.option("--to", "last", required=True, metavar="DATE", help="Last day, UTC.")
@click.option("--list", "listed", type=click.Choice(LISTABLE), help="Also list these one by one.")
@click.option(
    "--fail-on",
    metavar="FINDINGS",
    default="",
    help=f"Also exit with status 1 for any of {', '.join(FAILABLE)}, separated by commas.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def audit(first: str, last: str, listed: str | None, fail_on: str, *, as_json: bool) -> None:
    """Check who was due, and compare that with the messages.

    The audit computes from the users alone who was due, and when, with SEND_AT and LEAP_DAY as they are set here. It
    changes nothing. The exit status is 1 if a birthday is missing, a message is a duplicate or was sent at the wrong
    time, or there is a finding of --fail-on; 3 if the database does not answer.
    """
    with errors(COULD_NOT_LOOK):
        settings = database_settings()
        first_on, last_on = parse_day("--from", first), parse_day("--to", last)
        if first_on > last_on:
            raise click.BadParameter(f"{last_on} is before --from {first_on}", param_hint="--to")
        failures = _parse_failures(fail_on)
        result = run(_audit(settings, first_on, last_on, listed, as_json=as_json))
    if result.broken or result.has_any(failures):
        sys.exit(1)


async def _audit(settings: Settings, first: date, last: date, listed: str | None, *, as_json: bool) -> Audit:
    clock = SystemClock()
    async with checked_pool(settings, clock) as pool:
        auditor = make_auditor(settings, pool)
        return await run_audit(auditor, first, last, clock.now(), sys.stdout, listed=listed, as_json=as_json)


def _parse_failures(text: str) -> list[Finding]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    accepted = [*map(str, FAILABLE)]
    if unknown := [name for name in names if name not in accepted]:
        detail = f"'{unknown[0]}' is not accepted; accepted are {', '.join(accepted)}, separated by commas"
        raise click.BadParameter(detail, param_hint="--fail-on")
    return [Finding(name) for name in names]
