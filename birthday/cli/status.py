"""The command ``birthday status``: the state of the installation on one screen."""

import sys

import click

from birthday.cli.command import errors
from birthday.cli.database import database_settings, run
from birthday.cli.render.status import print_status, write_json
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.operations.status import ServiceStatus, read_status
from birthday.wiring.database import open_database
from birthday.wiring.names import database_name


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def status(*, as_json: bool) -> None:
    """Show the state of all processes and messages on one screen.

    It prints a line for each process that reported within the last minute (build, time-zone data, and a hash of the
    settings that must be equal everywhere), then pauses, overdue and failed messages, and the next peak. It needs only
    the database. The exit status is 1 if the database cannot be used.
    """
    with errors():
        settings = database_settings()
        found = run(_status(settings))
    write = write_json if as_json else print_status
    write(found, database_name(settings), sys.stdout)


async def _status(settings: Settings) -> ServiceStatus:
    clock = SystemClock()
    async with open_database(settings, clock) as pool:
        return await read_status(pool, settings.rules, clock.now())
