"""The command ``birthday migrate``: the schema of the database, and its rollback."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import click

from birthday.cli.command import errors, require_terminal
from birthday.cli.database import database_settings, run
from birthday.cli.render.migrations import print_changed, print_losses, print_status, print_waiting
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.store import migrations
from birthday.store.connection import Connection, borrow
from birthday.store.migrations import Migration, MigrationState, load_migrations
from birthday.store.sessions import is_shared
from birthday.wiring.database import connect_past_pooler

_Result = TypeVar("_Result")


@click.command()
@click.option(
    "--rollback",
    "steps",
    metavar="[N]",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=1,
    default=None,
    help="Undo the last N migrations instead.  [N: 1]",
)
@click.option(
    "--contract",
    is_flag=True,
    help="Also apply the contract migrations, which take away what the previous version uses. With --rollback, undo "
    "only such ones.",
)
@click.option("--status", is_flag=True, help="List the migrations and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before a rollback.")
def migrate(steps: int | None, *, contract: bool, status: bool, yes: bool) -> None:
    """Bring the database to the schema of this version.

    Safe to run at any time and from several hosts at once. An embedded database is migrated by the service itself.
    Contract migrations wait for --contract, except on an empty database: run it at the end of an upgrade, when all
    processes of the previous version have ended and will not be started again.
    --rollback prints what would be lost, and asks; without a terminal it needs --yes.
    """
    if status and (contract or steps is not None):
        raise click.UsageError("--status goes with neither --contract nor --rollback: it changes nothing")
    with errors():
        settings = database_settings(direct=True)
        if status:
            print_status(_run(settings, migrations.status))
        elif steps is not None:
            _confirm_rollback(settings, steps, contract=contract, yes=yes)
            undo = partial(migrations.rollback, count=steps, contract=contract)
            print_changed("undone", run(_change(settings, undo)))
        else:
            applied, states = run(_change(settings, partial(_apply, contract=contract)))
            print_changed("applied", applied)
            print_waiting(states)


def _confirm_rollback(settings: Settings, steps: int, *, contract: bool, yes: bool) -> None:
    """Print what a rollback would lose, and ask for confirmation unless ``yes``."""
    labels, losses = _run(settings, partial(migrations.foresee_rollback, count=steps, contract=contract))
    print_losses(labels, losses)
    if labels and not yes:
        require_terminal("a rollback asks before it destroys anything, and there is no terminal")
        click.confirm("Nothing brings that back but a backup. Undo?", abort=True, err=True)


def _run(settings: Settings, step: Callable[[Connection, Sequence[Migration]], Awaitable[_Result]]) -> _Result:
    """Run ``step`` with a connection to the database and all migrations."""

    async def run_step() -> _Result:
        async with connect_past_pooler(settings) as pool, borrow(pool, None) as connection:
            return await step(connection, load_migrations())

    return run(run_step())


async def _apply(
    connection: Connection, known: Sequence[Migration], *, contract: bool, keeper: Connection | None = None
) -> tuple[list[Migration], list[MigrationState]]:
    """Apply what is to be applied; return that, and where every migration stands then."""
    done = await migrations.migrate(connection, known, SystemClock().now(), contract=contract, keeper=keeper)
    return done, await migrations.status(connection, known)


async def _change(settings: Settings, step: Callable[..., Awaitable[_Result]]) -> _Result:
    """Run ``step``, which changes the schema. Where connections are no sessions, another one keeps its lock."""
    async with connect_past_pooler(settings) as pool, borrow(pool, None) as connection:
        if not is_shared(pool):
            return await step(connection, load_migrations())
        async with borrow(pool, None) as keeper:
            return await step(connection, load_migrations(), keeper=keeper)
