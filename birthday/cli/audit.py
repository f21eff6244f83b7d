"""The command ``birthday audit``: whether everybody who was due was greeted once, and at the right time."""

import sys
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import click

from birthday.cli.command import COULD_NOT_LOOK, errors
from birthday.cli.database import checked_pool, database_settings, run
from birthday.cli.render.audit import LISTABLE, AuditPrinter, JsonAuditPrinter
from birthday.cli.values import parse_day
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.core.audit import FAILABLE, Finding
from birthday.operations.audit import Audit, Auditor
from birthday.wiring.scheduler import make_auditor

_DAY: Final = timedelta(days=1)


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
    time, or there is a finding of --fail-on; 3 if the database could not be asked.
    """
    with errors(COULD_NOT_LOOK):
        settings = database_settings()
        first_on, last_on = parse_day("--from", first), parse_day("--to", last)
        if first_on > last_on:
            raise click.BadParameter(f"{last_on} is before --from {first_on}", param_hint="--to")
        failures = _parse_failures(fail_on)
        printer = (JsonAuditPrinter if as_json else AuditPrinter)(sys.stdout, listed)
        result = run(_audit(settings, first_on, last_on, printer))
    if result.broken or result.has_any(failures):
        sys.exit(1)


async def _audit(settings: Settings, first: date, last: date, printer: AuditPrinter) -> Audit:
    clock = SystemClock()
    async with checked_pool(settings, clock) as pool:
        return await print_audit(make_auditor(settings, pool), first, last, clock.now(), printer)


async def print_audit(auditor: Auditor, first: date, last: date, now: datetime, printer: AuditPrinter) -> Audit:
    """Audit what is due on the days from ``first`` to ``last``, UTC, and print it."""
    from_at = datetime.combine(first, time(), UTC)
    to_at = datetime.combine(min(last, date.max - _DAY) + _DAY, time(), UTC)
    audit = await auditor.audit_with_notes(from_at, to_at, now, printer.report)
    printer.end(audit, first, last, now)
    return audit


def _parse_failures(text: str) -> list[Finding]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    accepted = [*map(str, FAILABLE)]
    if unknown := [name for name in names if name not in accepted]:
        detail = f"'{unknown[0]}' is not accepted; accepted are {', '.join(accepted)}, separated by commas"
        raise click.BadParameter(detail, param_hint="--fail-on")
    return [Finding(name) for name in names]
