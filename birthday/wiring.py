"""What roles and commands share: database, queue and channel, opened as the settings say.

Each is a context: whoever enters it owns the resource until the context ends. One that cannot be opened says which it
is, where it was looked for, and why it failed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TextIO

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
from birthday.clock_guard import require_right_clock
from birthday.config import Role, Settings, check_channel, mask_url
from birthday.embedded import embedded_postgres, has_cluster
from birthday.errors import BirthdayError, ConfigurationError, UnavailableError
from birthday.store.connection import DATABASE_ERRORS, keep_session, knows_case
from birthday.store.migrations import check_schema, load_migrations, migrate, schema_directory
from birthday.store.pool import make_pool
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing

log = structlog.get_logger()

CONNECT_SECONDS = 10
COMMAND_SECONDS = 60
"""How long a command waits for a statement that has no time limit of its own."""
SERVING_SECONDS = 15
"""The same for the service: so late does it notice that a connection has died without a word, or twice as late."""
IDLE_TRANSACTION_SECONDS = 30
"""How long the server lets the service hold locks without a word: others wait for them if its host has vanished."""


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
            else:
                for differing in await check_schema(connection, load_migrations(schema_directory())):
                    log.warning("schema.differs", migration=differing.label, state=differing.state)
            if not await knows_case(connection):
                reason = "addresses that differ in the case of a letter beyond ASCII count as two"
                log.warning("database.case_of_ascii_only", reason=reason)
        yield pool


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
    session = {"application_name": "birthday", "jit": "off"}
    if metrics is not None:
        session["idle_in_transaction_session_timeout"] = f"{IDLE_TRANSACTION_SECONDS}s"
    async with AsyncExitStack() as stack:
        if settings.database_url is None:
            count = metrics.background_failures.labels("embedded_database").inc if metrics else _nobody_counts
            embedded = embedded_postgres(settings.birthday_data_dir, on_failure=count)
            dsn = await stack.enter_async_context(embedded)
        else:
            dsn = settings.database_url.get_secret_value()
        try:
            pool = await make_pool(
                dsn,
                metrics,
                min_size=settings.database_pool_min,
                max_size=settings.database_pool_max,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS if metrics is None else SERVING_SECONDS,
                server_settings=session,
                reset=keep_session,
            )
        except (ValueError, *DATABASE_ERRORS) as error:
            text = f"cannot connect to the database, {database_name(settings)}: {str(error) or type(error).__name__}"
            raise UnavailableError("database", text) from None
        stack.push_async_callback(_close_pool, pool)
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
async def open_broker(settings: Settings, pool: asyncpg.Pool) -> AsyncIterator[Broker]:
    """Yield the queue: RabbitMQ if RABBITMQ_URL is set, otherwise PostgreSQL.

    Raises:
        UnavailableError: if it cannot be reached or its topology is not ours.
    """
    if settings.rabbitmq_url is None:
        opened = _checked(PostgresBroker(pool, where=f"the queue in {database_name(settings)}"))
    else:
        opened = _checked(RabbitMQBroker(settings.rabbitmq_url.get_secret_value()))
    async with opened as broker:
        yield broker


@asynccontextmanager
async def _checked(broker: Broker) -> AsyncIterator[Broker]:
    try:
        await broker.check()
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
    release = version("birthday-scheduler")
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


@dataclass(frozen=True, slots=True)
class Dependency:
    """One thing that the product depends on, where it is, and why it cannot be used, if so."""

    name: str
    where: str
    error: str | None


async def try_dependencies(settings: Settings, clock: Clock, console: TextIO) -> list[Dependency]:
    """Open every resource once; never raises for what is wrong with one."""

    async def try_database() -> None:
        async with open_database(settings, clock):
            pass

    async def try_queue() -> None:
        if settings.rabbitmq_url is not None:
            # It needs no database, and must not be blamed for one that is away.
            async with _checked(RabbitMQBroker(settings.rabbitmq_url.get_secret_value())):
                return
        async with connect_database(settings) as pool, open_broker(settings, pool):
            pass

    async def try_channel() -> None:
        check_channel(settings)
        async with open_channel(settings, clock, console) as channel:
            await channel.check()

    async def try_clock() -> None:
        async with connect_database(settings) as pool:
            await require_right_clock(pool, clock)

    database = Dependency("database", database_name(settings), await _complaint(try_database))
    tried = [
        database,
        Dependency("queue", queue_name(settings), await _complaint(try_queue)),
        Dependency("channel", channel_name(settings), await _complaint(try_channel)),
    ]
    if database.error is None:
        tried.append(Dependency("clock", "of this host, beside the database's", await _complaint(try_clock)))
    return tried


async def _complaint(attempt: Callable[[], Awaitable[None]]) -> str | None:
    try:
        await attempt()
    except BirthdayError as error:
        return str(error)
    return None
