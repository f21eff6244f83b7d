"""What commands that use the database have in common: read the settings, open the database, run to the end."""

import os
import pwd
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import click
import uvloop

from birthday.broker import Broker
from birthday.clock import Clock, SystemClock
from birthday.config import Settings, load_settings
from birthday.operations.clock_guard import require_right_clock
from birthday.store.changes import Actor
from birthday.store.connection import Connection, borrow
from birthday.telemetry.logs import LogFile, configure_logs
from birthday.wiring.database import open_database, require_database
from birthday.wiring.names import database_name
from birthday.wiring.queue import open_broker

_Result = TypeVar("_Result")


def run(main_task: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command to its end on a new event loop. Ctrl-C cancels it, and is raised after its cleanup."""
    return uvloop.run(main_task)


def command_settings() -> Settings:
    """Read the settings for a command, and send its log to standard error: warnings and errors by default."""
    settings = load_settings()
    # A command prints its result, so info lines are left out: LOG_LEVEL=info may be meant for the service.
    level = "warning" if settings.log_level == "info" else settings.log_level
    configure_logs(level, settings.log_format, LogFile(None), "command")
    return settings


def database_settings(*, create: bool = False, direct: bool = False) -> Settings:
    """Read the settings for a command that uses the database, and print on standard error which database that is.

    With ``direct`` the command uses DATABASE_DIRECT_URL, if it is set.

    Raises:
        ConfigurationError: if a setting is wrong, or there is no database and the command must not ``create`` one.
    """
    settings = command_settings()
    if not create:
        require_database(settings)
    click.echo(f"birthday: the database is {database_name(settings.direct if direct else settings)}", err=True)
    return settings


@asynccontextmanager
async def checked_pool(settings: Settings, clock: Clock, *, create: bool = False) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on the database, for work that depends on the current time.

    Raises:
        WrongClockError: if ``clock`` is far from the database's.
    """
    async with open_database(settings, clock, create=create) as pool:
        await require_right_clock(pool, clock)
        yield pool


@asynccontextmanager
async def connection_for_long(settings: Settings) -> AsyncIterator[Connection]:
    """Yield a connection to the database that may be borrowed without a time limit."""
    async with open_database(settings, SystemClock()) as pool, borrow(pool, None) as connection:
        yield connection


@asynccontextmanager
async def pool_and_broker(settings: Settings) -> AsyncIterator[tuple[asyncpg.Pool, Broker, Clock]]:
    """Yield the database, the queue and the clock."""
    clock = SystemClock()
    async with open_database(settings, clock) as pool, open_broker(settings, pool) as broker:
        yield pool, broker, clock


def operator() -> Actor:
    """Return who runs this command, as cli:user@host."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return Actor(f"cli:{user}@{socket.gethostname()}")
