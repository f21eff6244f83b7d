"""The command ``birthday erase``: removes what is held on a person."""

import sys
from collections.abc import Sequence
from uuid import UUID

import click

from birthday.cli.command import errors, require_terminal
from birthday.cli.database import checked_pool, database_settings, operator, run
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.errors import NotFoundError
from birthday.store.connection import borrow
from birthday.store.persons import erase as erase_person


@click.command()
@click.argument("user_ids", metavar="ID...", nargs=-1, required=True, type=click.UUID)
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(user_ids: Sequence[UUID], *, yes: bool) -> None:
    """Erase persons: remove what is held on users, live or deleted.

    Pending messages are cancelled. Hashes stay, so that a person is not greeted twice in a year, and an opt-out holds.
    The command asks first; without a terminal it needs --yes. If an id is not known, the others are erased, and the
    exit status is 1.
    """
    if not yes:
        require_terminal("erase asks before it removes anything, and there is no terminal to ask on")
    with errors():
        settings = database_settings()
        if not yes:
            click.confirm(f"{len(user_ids)} users cannot be restored. Erase?", abort=True)
        unknown = run(_erase(settings, user_ids))
    if unknown:
        sys.exit(1)


async def _erase(settings: Settings, user_ids: Sequence[UUID]) -> int:
    """Erase users one by one, print what was done, and return how many are not known."""
    clock, unknown = SystemClock(), 0
    async with checked_pool(settings, clock) as pool:
        for user_id in user_ids:
            try:
                async with borrow(pool) as connection, connection.transaction():
                    erased = await erase_person(connection, user_id, clock.now(), operator())
            except NotFoundError as error:
                unknown += 1
                click.echo(f"birthday: {error}", err=True)
                continue
            state = "erased" if erased.profile else "was erased before"
            click.echo(f"{user_id} {state}, {erased.cancelled} messages cancelled, {erased.given_up} may still arrive")
    return unknown
