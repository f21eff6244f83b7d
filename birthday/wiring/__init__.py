"""What roles and commands share: database, queue and channel, opened as the settings say.

Each is a context: whoever enters it owns the resource until the context ends. One that cannot be opened says which it
is, where it was looked for, and why it failed.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TextIO
from uuid import uuid4

import asyncpg
import structlog

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.channels import Channel
from birthday.channels.message_service.channel import HttpChannel
from birthday.channels.message_service.route import Network
from birthday.channels.message_service.traced import TracedChannel
from birthday.channels.terminal import ConsoleChannel
from birthday.clock import Clock
from birthday.config import Role, Settings, check_channel, mask_url, shared_settings
from birthday.config.dsn import read_database_url
from birthday.core.zone import data_version
from birthday.embedded import embedded_postgres, has_cluster
from birthday.errors import BirthdayError, ConfigurationError, UnavailableError
from birthday.http.probes.readiness import CHANNEL, CLOCK, DATABASE, MIGRATIONS, QUEUE, Check
from birthday.operations.clock_guard import require_right_clock
from birthday.store.connection import DATABASE_ERRORS, borrow, keep_session, knows_case
from birthday.store.migrations import PendingMigrationError, check_schema, load_migrations, migrate, schema_directory
from birthday.store.pool import make_pool
from birthday.store.probe import DatabaseCheck
from birthday.store.processes import Process
from birthday.store.sessions import NO_SESSIONS, SHARED_SESSION_ERRORS, check_sessions
from birthday.telemetry.build import find_commit, read_version
from birthday.telemetry.errors import error_text
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing

log = structlog.get_logger()

CONNECT_SECONDS = 10
COMMAND_SECONDS = 60
"""How long a command waits for a statement that has no time limit of its own."""
SERVING_SECONDS = 15
"""The same for the service: so late does it notice that a connection has died without a word, or twice as late."""


@asynccontextmanager
async def open_database(
    settings: Settings, clock: Clock, metrics: Metrics | None = None, *, create: bool = False
) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on the database: the embedded one, migrated, or that of DATABASE_URL, which must be migrated.

    ``metrics`` are those of the service, which must not wait as long as a command, nor let others wait for it. With
    ``create`` the embedded database is made if there is none.

    Raises:
        UnavailableError: if it cannot be reached.
        MigrationError: if the schema is not what the program needs.
        ConfigurationError: if there is no embedded database, and DATABASE_URL names no other one.
    """
    async with connect_database(settings, metrics, create=create) as pool:
        async with pool.acquire() as connection:
            if settings.database_url is None:
                await migrate(connection, load_migrations(schema_directory()), clock.now())
        await _warn_of_schema(pool)
        yield pool


async def _warn_of_schema(pool: asyncpg.Pool) -> None:
    """Log where the database differs from what the program expects, and works all the same.

    Raises:
        MigrationError: if migrations are pending.
    """
    async with pool.acquire() as connection:
        for differing in await check_schema(connection, load_migrations(schema_directory())):
            log.warning("schema.differs", migration=differing.label, state=differing.state)
        if not await knows_case(connection):
            reason = "addresses that differ in the case of a letter beyond ASCII count as two"
            log.warning("database.case_of_ascii_only", reason=reason)


@asynccontextmanager
async def connect_database(
    settings: Settings, metrics: Metrics | None = None, *, create: bool = False
) -> AsyncIterator[asyncpg.Pool]:
    """Yield a pool on the database of ``settings``, in whatever state it is; start the embedded one if none is set.

    Raises:
        UnavailableError: if it cannot be reached; the text says where and why.
        ConfigurationError: if there is no embedded database, it must not be made, and DATABASE_URL names no other one.
    """
    if not create:
        require_database(settings)
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            count = metrics.background_failures.labels("embedded_database").inc if metrics else _nobody_counts
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
                timeout=url.connect_seconds or CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS if metrics is None else SERVING_SECONDS,
                server_settings={"application_name": url.application_name or "birthday"},
                reset=keep_session,
            )
        except KeyError:
            # What asyncpg falls back on is the name of the process's user.
            reason = f"it names no user, and the user id of this process, {os.getuid()}, has no name"
            raise UnavailableError("database", f"{database_name(settings)}: {reason}; name one in the URL") from None
        except SHARED_SESSION_ERRORS:
            raise UnavailableError("database", f"{where}: {NO_SESSIONS}") from None
        except (ValueError, *DATABASE_ERRORS) as error:
            raise UnavailableError("database", f"{where}: {str(error) or type(error).__name__}") from None
        stack.push_async_callback(_close_pool, pool)
        try:
            await check_sessions(pool)
        except (UnavailableError, *DATABASE_ERRORS) as error:
            raise UnavailableError("database", f"{where}: {str(error) or type(error).__name__}") from None
        yield pool


def _nobody_counts() -> None:
    """Do nothing: commands have no metrics."""


async def _close_pool(pool: asyncpg.Pool) -> None:
    """Close all connections. By now everything is stored, so one that breaks instead of ending well changes nothing."""
    try:
        await asyncio.wait_for(pool.close(), CONNECT_SECONDS)
    except (TimeoutError, *DATABASE_ERRORS) as error:
        log.info("database.close_failed", error=error)
        pool.terminate()


@asynccontextmanager
async def open_broker(settings: Settings, pool: asyncpg.Pool, *, must_answer: bool = True) -> AsyncIterator[Broker]:
    """Yield the queue: RabbitMQ if RABBITMQ_URL is set, otherwise PostgreSQL; one that is away if it need not answer.

    Raises:
        UnavailableError: if it cannot be reached or its topology is not ours.
    """
    if settings.rabbitmq_url is None:
        opened = _checked(PostgresBroker(pool, where=f"the queue in {database_name(settings)}"))
    else:
        opened = _checked(RabbitMQBroker(settings.rabbitmq_url.get_secret_value()), must_answer=must_answer)
    async with opened as broker:
        yield broker


@asynccontextmanager
async def _checked(broker: Broker, *, must_answer: bool = True) -> AsyncIterator[Broker]:
    try:
        try:
            await broker.check()
        except UnavailableError as error:
            if must_answer:
                raise
            log.warning("broker.away", error=str(error))
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def open_channel(
    settings: Settings, clock: Clock, console: TextIO, tracing: Tracing = NO_TRACING
) -> AsyncIterator[Channel]:
    """Yield the channel: the message service if MESSAGE_SERVICE_URL is set, otherwise the console.

    A message service that is down now is no reason not to start: messages wait for it.
    """
    if settings.message_service_url is None:
        yield ConsoleChannel(console, clock)
        return
    key = settings.message_service_api_key
    channel = HttpChannel(
        settings.message_service_url,
        Network(settings.proxies, settings.no_proxy or "", settings.ssl_cert_file),
        settings.worker_concurrency,
        key.get_secret_value() if key else None,
        settings.message_service_timeout,
        clock,
    )
    try:
        yield TracedChannel(channel, tracing) if tracing.enabled else channel
    finally:
        await channel.close()


@asynccontextmanager
async def open_tracing(settings: Settings, console: TextIO) -> AsyncIterator[Tracing]:
    """Yield what traces, or what does nothing if OTEL_TRACES_EXPORTER is none."""
    if settings.otel_traces_exporter == "none":
        yield NO_TRACING
        return
    # Only now: it is an extra, which need not be there, and takes its time to be imported.
    from birthday.telemetry import otel_export  # noqa: PLC0415

    queue = "postgresql" if settings.rabbitmq_url is None else "rabbitmq"
    release = read_version()
    async with otel_export.open_tracing(settings.otel_traces_exporter, queue, release, console) as tracing:
        yield tracing


def lacks_database(settings: Settings) -> bool:
    """Say whether the database would have to be made: an embedded one that does not exist yet."""
    return settings.database_url is None and not has_cluster(settings.birthday_data_dir)


def require_database(settings: Settings) -> None:
    """Make sure that there is a database, whatever state it is in.

    Raises:
        ConfigurationError: if it would have to be made.
    """
    if lacks_database(settings):
        raise ConfigurationError(
            f"DATABASE_URL is not set, and BIRTHDAY_DATA_DIR='{settings.birthday_data_dir.absolute()}' has no embedded "
            "database, which only the service and 'birthday import' create: set DATABASE_URL or BIRTHDAY_DATA_DIR, "
            "name the file that sets them with --env-file PATH, or run this where the service runs"
        )


def database_name(settings: Settings) -> str:
    """Say which database is used, and how to use another one if that is not obvious."""
    if settings.database_url is None:
        return f"embedded PostgreSQL in {settings.birthday_data_dir.absolute()} (set DATABASE_URL for your own)"
    return mask_url(settings.database_url.get_secret_value())


def queue_name(settings: Settings) -> str:
    """Say which queue is used."""
    if settings.rabbitmq_url is None:
        return "in the database (set RABBITMQ_URL for RabbitMQ)"
    return mask_url(settings.rabbitmq_url.get_secret_value())


def channel_name(settings: Settings) -> str:
    """Say where messages go."""
    if settings.message_service_url is None and Role.WORKER not in settings.role:
        return "none: without the role worker nothing is sent"
    if settings.message_service_url is None:
        return "console: greetings are printed (set MESSAGE_SERVICE_URL to send them)"
    return mask_url(settings.message_service_url)


def database_checks(pool: asyncpg.Pool) -> dict[str, Check]:
    """Return how to ask whether the database can be used, and has the schema of this program, by name.

    ``/ready`` and ``birthday check`` ask the same.
    """
    migrations = load_migrations(schema_directory())

    async def check_migrations() -> None:
        async with borrow(pool) as connection:
            await check_schema(connection, migrations)

    return {DATABASE: DatabaseCheck(pool), MIGRATIONS: check_migrations}


def this_process(settings: Settings, clock: Clock) -> Process:
    """Say what this process is, with ``settings`` in force."""
    return Process(
        uuid4(),
        socket.gethostname(),
        os.getpid(),
        settings.role_names,
        read_version(),
        find_commit(settings.birthday_commit),
        data_version(),
        shared_settings(settings),
        clock.now(),
    )


@dataclass(frozen=True, slots=True)
class Dependency:
    """One thing that the product depends on, where it is, and why it cannot be used, if so.

    ``next_step`` is what is left to do about it in the ordinary course of a deployment; it is no error. ``note`` is
    what could be tried of it, and what could not.
    """

    name: str
    where: str
    error: str | None = None
    next_step: str | None = None
    note: str | None = None


async def try_dependencies(settings: Settings, clock: Clock, console: TextIO) -> list[Dependency]:
    """Ask every dependency what ``/ready`` asks it, and the channel; never raises for what is wrong with one."""
    note: str | None = None

    async def try_channel() -> None:
        nonlocal note
        check_channel(settings)
        async with open_channel(settings, clock, console) as channel:
            await channel.check()
            if isinstance(channel, HttpChannel):
                note = await channel.try_key()

    try:
        async with connect_database(settings) as pool:
            found = await _try_database(settings, pool, clock)
    except BirthdayError as error:
        found = [Dependency(DATABASE, database_name(settings), str(error))]
        if settings.rabbitmq_url is None:
            found.append(Dependency(QUEUE, queue_name(settings), str(error)))
    if settings.rabbitmq_url is not None:
        # It needs no database, and must not be blamed for one that is away.
        broker = RabbitMQBroker(settings.rabbitmq_url.get_secret_value())
        found.append(Dependency(QUEUE, queue_name(settings), await _complaint(partial(_try_broker, broker))))
    complaint = await _complaint(try_channel)
    return [*found, Dependency(CHANNEL, channel_name(settings), complaint, note=note)]


async def _try_database(settings: Settings, pool: asyncpg.Pool, clock: Clock) -> list[Dependency]:
    """Ask the database, its clock, and the queue if that is in it."""
    checks = database_checks(pool)
    found = [Dependency(DATABASE, database_name(settings), await _complaint(checks[DATABASE]))]
    wrong = await _complaint(partial(require_right_clock, pool, clock))
    found.append(Dependency(CLOCK, "of this host, beside the database's", wrong))
    step = None
    try:
        error = await _complaint(checks[MIGRATIONS])
    except PendingMigrationError as pending:
        apply = "`birthday migrate`" if settings.database_url else "start the service, which applies them"
        error, step = None, f"{apply}: {', '.join(pending.labels)}"
    found.append(Dependency(MIGRATIONS, "of the database", error, step))
    if error is None and step is None:
        await _warn_of_schema(pool)
    if settings.rabbitmq_url is None:
        complaint = await _complaint(partial(_try_broker, PostgresBroker(pool, where="the queue in the database")))
        # Its table may be among what is pending.
        found.append(Dependency(QUEUE, queue_name(settings), None if step else complaint, step and "the migrations"))
    return found


async def _try_broker(broker: Broker) -> None:
    async with _checked(broker):
        pass


async def _complaint(attempt: Check) -> str | None:
    try:
        await attempt()
    except PendingMigrationError:
        raise
    except BirthdayError as error:
        return str(error)
    except asyncpg.PostgresError as error:
        return f"the database refuses: {error_text(error)}"
    return None
