"""The command ``birthday check``: the settings in force, and whether each dependency that they name can be used."""

import sys
from collections.abc import Sequence

import click

from birthday.cli.command import errors
from birthday.cli.database import command_settings, run
from birthday.cli.render.check import (
    print_dependencies,
    print_differences,
    print_keys,
    print_limits,
    print_replication,
    print_settings,
)
from birthday.clock import SystemClock
from birthday.config import Settings, check_listener, effective_settings, misspelt_settings
from birthday.operations.heartbeats import RUNNING_SECONDS, differences
from birthday.operations.readiness import DATABASE, MIGRATIONS
from birthday.store.connection import borrow
from birthday.store.keys import StoredKey, read_keys
from birthday.store.processes import Seen, read_processes
from birthday.store.statistics import Limits, Replication, read_limits, read_replication
from birthday.wiring.database import lacks_database, open_database
from birthday.wiring.dependencies import try_dependencies
from birthday.wiring.file_limit import raise_file_limit
from birthday.wiring.process import this_process


@click.command()
def check() -> None:
    """Print the settings in force, and try every dependency.

    Secrets are masked. The dependencies are those of /ready. The exit status is 1 if one cannot be used. Missing
    migrations are shown as the next step, not as a failure.
    """
    with errors():
        settings = command_settings()
        dependencies = run(try_dependencies(settings, SystemClock(), sys.stdout))
        asked = [one for one in dependencies if one.name in {DATABASE, MIGRATIONS}]
        # Other processes are read only from a database that works and has the current schema.
        unknown = any(one.error or one.next_step for one in asked)
        others, keys, replication, limits = ([], None, None, None) if unknown else run(_read(settings))
        check_listener(settings, has_keys=bool(keys))
    print_settings(effective_settings(settings))
    print_dependencies(misspelt_settings(), dependencies)
    print_keys(settings.api_keys, keys, SystemClock().now())
    print_replication(replication)
    print_limits(limits)
    click.echo(f"{'files':<10} {raise_file_limit()}")
    here = this_process(settings, SystemClock())
    print_differences(here, differences([here, *(one.process for one in others)]))
    if any(dependency.error is not None for dependency in dependencies):
        sys.exit(2 if lacks_database(settings) else 1)


async def _read(settings: Settings) -> tuple[Sequence[Seen], Sequence[StoredKey], Replication, Limits]:
    async with open_database(settings, SystemClock()) as pool, borrow(pool) as connection:
        processes, keys = await read_processes(connection, RUNNING_SECONDS), await read_keys(connection)
        return processes, keys, await read_replication(connection), await read_limits(connection)
