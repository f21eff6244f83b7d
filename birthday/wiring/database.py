"""The database of the settings: opened, closed, and checked.

``open_database`` and ``connect_database`` are contexts that close the pool at their end. If the database cannot be
opened, the error says where it is and why that failed.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import structlog

from birthday.clock import Clock
from birthday.config import Settings
from birthday.config.dsn import read_database_url
from birthday.embedded import embedded_postgres, has_cluster
from birthday.errors import AwayError, ConfigurationError, UnavailableError
from birthday.operations.feed import keep_order
from birthday.operations.readiness import DATABASE, MIGRATIONS, Check
from birthday.store.connection import DATABASE_ERRORS, borrow, is_away, knows_case
from birthday.store.hosts import Hosts
from birthday.store.migrations import check_schema, load_migrations, migrate
from birthday.store.pool import make_pool
from birthday.store.probe import DatabaseCheck
from birthday.store.sessions import NO_SESSIONS, SHARED_SESSION_ERRORS, check_sessions, is_same_database
from birthday.telemetry.metrics import Metrics
from birthday.wiring.names import database_name

log = structlog.get_logger()

CONNECT_SECONDS = 10
HOST_SECONDS = 3
"""How long each of several hosts may take to connect, so that all have been tried while a borrower waits."""
COMMAND_SECONDS = 60
"""How long a command waits for a statement that has no time limit of its own."""
SERVING_SECONDS = 15
"""The same for the service. A dead connection is noticed within one or two of these intervals."""


@asynccontextmanager
async def open_database(
    settings: Settings, clock: Clock, metrics: Metrics | None = None, *, create: bool = False
) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on the database: DATABASE_URL's, or the embedded one. Only the embedded one is migrated here.

    Its contract migrations wait for ``birthday migrate --contract``, because an older program may share the database.
    Only the service passes ``metrics``; its statements then have a shorter time limit than those of a command. With
    ``create`` the embedded database is created if it does not exist.

    Raises:
        AwayError: if it cannot be reached.
        UnavailableError: if it refuses us.
        MigrationError: if the schema is not the one that the program needs.
        ConfigurationError: if DATABASE_URL is not set, and the embedded database neither exists nor may be created.
    """
    async with connect_database(settings, metrics, create=create) as pool:
        async with pool.acquire() as connection:
            if settings.database_url is None:
                await migrate(connection, load_migrations(), clock.now())
        await warn_of_schema(pool)
        await keep_order(pool)
        yield pool


@asynccontextmanager
async def connect_database(
    settings: Settings, metrics: Metrics | None = None, *, create: bool = False
) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on the database of ``settings`` without a look at its schema; start the embedded one if none is set.

    Raises:
        AwayError: if it cannot be reached; the text says where and why.
        UnavailableError: if it refuses us.
        ConfigurationError: if DATABASE_URL is not set, and the embedded database neither exists nor may be created.
    """
    if not create:
        require_database(settings)
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            count = metrics.background_failures.labels("embedded_database").inc if metrics else lambda: None
            embedded = embedded_postgres(settings.birthday_data_dir, on_failure=count)
            url = read_database_url(await stack.enter_async_context(embedded))
        else:
            url = read_database_url(settings.database_url.get_secret_value())
        if url.ignored:
            log.warning("database.url_parameters_ignored", parameters=", ".join(url.ignored))
        where = f"cannot connect to the database, {database_name(settings)}"
        try:
            pool = await make_pool(
                url.dsn,
                metrics,
                min_size=settings.database_pool_min,
                max_size=settings.database_pool_max,
                hosts=Hosts(url.hosts) if url.hosts else None,
                timeout=url.connect_seconds or (HOST_SECONDS if url.hosts else CONNECT_SECONDS),
                command_timeout=COMMAND_SECONDS if metrics is None else SERVING_SECONDS,
                by_transaction=settings.database_pooler == "transaction",
                server_settings={"application_name": url.application_name or "birthday"},
            )
        except KeyError:
            # If the URL names no user, asyncpg looks up the name of the process's user.
            reason = f"it names no user, and the user id of this process, {os.getuid()}, has no name"
            raise UnavailableError("database", f"{database_name(settings)}: {reason}; name one in the URL") from None
        except SHARED_SESSION_ERRORS:
            raise UnavailableError("database", f"{where}: {NO_SESSIONS}") from None
        except (ValueError, *DATABASE_ERRORS) as error:
            raise _failure(where, error) from None
        stack.push_async_callback(_close_pool, pool)
        try:
            await check_sessions(pool)
        except (UnavailableError, *DATABASE_ERRORS) as error:
            raise _failure(where, error) from None
        yield pool


@asynccontextmanager
async def connect_directly(settings: Settings, pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Pool | None]:
    """Yield another pool on the database of ``pool``, without the pooler; None if DATABASE_DIRECT_URL is not set.

    Raises:
        AwayError: if the server cannot be reached.
        UnavailableError: if it refuses us, or has another database.
    """
    if settings.database_direct_url is None:
        yield None
        return
    async with connect_database(settings.direct.model_copy(update={"database_pool_min": 0})) as direct:
        await _require_same(settings, pool, direct)
        yield direct


@asynccontextmanager
async def connect_past_pooler(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on the database without the pooler before it, if any. A pooler that is away only causes a warning.

    Raises:
        AwayError: if the server cannot be reached.
        UnavailableError: if it or the pooler refuses us, or the pooler leads to another database.
        ConfigurationError: if DATABASE_URL is not set, and the embedded database does not exist.
    """
    async with connect_database(settings.direct) as direct:
        await compare_with_pooler(settings, direct)
        yield direct


async def compare_with_pooler(settings: Settings, direct: asyncpg.Pool) -> None:
    """Make sure that DATABASE_URL leads to the database of ``direct``, the pool of DATABASE_DIRECT_URL, if that is set.

    If a pooler that is away prevents it, log a warning.

    Raises:
        UnavailableError: if the pooler refuses us, or leads to another database.
    """
    if settings.database_direct_url is None:
        return
    try:
        async with connect_database(settings.model_copy(update={"database_pool_min": 0})) as pool:
            await _require_same(settings, pool, direct)
    except AwayError as error:
        log.warning("database.not_compared", error=str(error))


async def _require_same(settings: Settings, pool: asyncpg.Pool, direct: asyncpg.Pool) -> None:
    """Make sure that DATABASE_URL and DATABASE_DIRECT_URL, whose pools are passed in, lead to one database."""
    past, through = database_name(settings.direct), database_name(settings)
    try:
        is_same = await is_same_database(pool, direct)
    except DATABASE_ERRORS as error:
        raise _failure(f"cannot compare DATABASE_DIRECT_URL, {past}, with DATABASE_URL, {through}", error) from None
    if not is_same:
        raise UnavailableError(
            "database",
            f"DATABASE_DIRECT_URL, {past}, leads to another database than DATABASE_URL, {through}: both must lead to "
            "one database of one server",
        )


def _failure(where: str, error: Exception) -> UnavailableError:
    kind = AwayError if is_away(error) else UnavailableError
    return kind("database", f"{where}: {str(error) or type(error).__name__}")


async def _close_pool(pool: asyncpg.Pool) -> None:
    """Close all connections. Errors are only logged, because everything is stored by now."""
    try:
        await asyncio.wait_for(pool.close(), CONNECT_SECONDS)
    except (TimeoutError, *DATABASE_ERRORS) as error:
        log.info("database.close_failed", error=error)
        pool.terminate()


async def warn_of_schema(pool: asyncpg.Pool) -> None:
    """Log each point in which the database differs from what the program expects but can still be used.

    Raises:
        MigrationError: if migrations are pending, or the role may not use the tables.
    """
    async with pool.acquire() as connection:
        for differing in await check_schema(connection, load_migrations()):
            log.warning("schema.differs", migration=differing.label, state=differing.state)
        if not await knows_case(connection):
            reason = "addresses that differ in the case of a letter beyond ASCII count as two"
            log.warning("database.case_of_ascii_only", reason=reason)


def lacks_database(settings: Settings) -> bool:
    """Say whether DATABASE_URL is not set and the embedded database does not exist yet."""
    return settings.database_url is None and not has_cluster(settings.birthday_data_dir)


def require_database(settings: Settings) -> None:
    """Make sure that there is a database; its state is not checked.

    Raises:
        ConfigurationError: if DATABASE_URL is not set and the embedded database does not exist yet.
    """
    if lacks_database(settings):
        raise ConfigurationError(
            f"DATABASE_URL is not set, and BIRTHDAY_DATA_DIR='{settings.birthday_data_dir.absolute()}' has no embedded "
            "database, which only the service and 'birthday import' create: set DATABASE_URL or BIRTHDAY_DATA_DIR, "
            "name the file that sets them with --env-file PATH, or run this where the service runs"
        )


def database_checks(pool: asyncpg.Pool) -> dict[str, Check]:
    """Return the checks, by name, that the database can be used and has the schema of this program.

    ``/ready`` and ``birthday check`` both use them.
    """
    migrations = load_migrations()

    async def check_migrations() -> None:
        async with borrow(pool) as connection:
            await check_schema(connection, migrations)

    return {DATABASE: DatabaseCheck(pool), MIGRATIONS: check_migrations}
