"""The command ``birthday migrate``: the schema of the database, and its rollback."""

import click

from birthday.cli.command import errors, require_terminal
from birthday.cli.database import database_settings, run
from birthday.cli.render.migrations import print_changed, print_losses, print_status
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.store import migrations
from birthday.store.connection import borrow
from birthday.store.migrations import Loss, Migration, MigrationState
from birthday.wiring.database import connect_database


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
@click.option("--status", is_flag=True, help="List the migrations and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before a rollback.")
def migrate(steps: int | None, *, status: bool, yes: bool) -> None:
    """Bring the database to the schema of this version.

    Safe to run at any time and from several hosts at once. An embedded database is migrated by the service itself.
    --rollback says what is lost with it, and asks first, on a terminal; anywhere else it needs --yes.
    """
    if status and steps is not None:
        raise click.UsageError("--status and --rollback exclude each other")
    with errors():
        settings = database_settings()
        if status:
            print_status(run(_migration_status(settings)))
            return
        if steps is not None:
            _confirm_rollback(settings, steps, yes=yes)
        changed = run(_undo(settings, steps) if steps is not None else _apply(settings))
    print_changed("applied" if steps is None else "undone", changed)


def _confirm_rollback(settings: Settings, steps: int, *, yes: bool) -> None:
    """Print what a rollback would lose, and ask for confirmation unless ``yes``."""
    labels, losses = run(_foresee(settings, steps))
    print_losses(labels, losses)
    if labels and not yes:
        require_terminal("a rollback asks before it destroys anything, and there is no terminal")
        click.confirm("Nothing brings that back but a backup. Undo?", abort=True, err=True)


async def _foresee(settings: Settings, steps: int) -> tuple[list[str], list[Loss]]:
    async with connect_database(settings) as pool, borrow(pool, None) as connection:
        return await migrations.foresee_rollback(connection, _known_migrations(), steps)


async def _apply(settings: Settings) -> list[Migration]:
    async with connect_database(settings) as pool, borrow(pool, None) as connection:
        return await migrations.migrate(connection, _known_migrations(), SystemClock().now())


async def _undo(settings: Settings, steps: int) -> list[Migration]:
    async with connect_database(settings) as pool, borrow(pool, None) as connection:
        return await migrations.rollback(connection, _known_migrations(), steps)


async def _migration_status(settings: Settings) -> list[MigrationState]:
    async with connect_database(settings) as pool, borrow(pool, None) as connection:
        return await migrations.status(connection, _known_migrations())


def _known_migrations() -> list[Migration]:
    return migrations.load_migrations(migrations.schema_directory())
