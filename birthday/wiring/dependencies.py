"""One try of every dependency that the settings name, for ``birthday check``."""

from dataclasses import dataclass
from functools import partial
from typing import Final, TextIO

import asyncpg

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.channels.message_service.channel import HttpChannel
from birthday.channels.smtp.channel import SmtpChannel
from birthday.clock import Clock
from birthday.config import Settings, check_channel, mask_url
from birthday.errors import BirthdayError
from birthday.operations.clock_guard import require_right_clock
from birthday.operations.readiness import CHANNEL, CLOCK, DATABASE, MIGRATIONS, QUEUE, Check
from birthday.store.connection import DATABASE_ERRORS, borrow
from birthday.store.migrations import PendingMigrationError, load_migrations, status
from birthday.store.sessions import Pooler, check_sessions, is_shared, missing_role_settings
from birthday.telemetry.errors import error_text
from birthday.wiring.channel import open_channel
from birthday.wiring.database import connect_database, connect_directly, database_checks, warn_of_schema
from birthday.wiring.names import channel_name, database_name, queue_name
from birthday.wiring.queue import checked_broker
from birthday.wiring.scheduler import make_receiver

_POOLERS: Final = {
    Pooler.NONE: "there is none",
    Pooler.SESSION: "keeps sessions (pgbouncer: pool_mode = session)",
    Pooler.TRANSACTION: "hands connections out by transaction (pgbouncer: pool_mode = transaction)",
}


@dataclass(frozen=True, slots=True)
class Dependency:
    """One dependency of the product, and where it is. ``error`` says why it cannot be used, and is None otherwise.

    ``next_step`` is the next step of an ordinary deployment, such as migrations to apply; it is not an error. ``note``
    says what could be checked, and what could not.
    """

    name: str
    where: str
    error: str | None = None
    next_step: str | None = None
    note: str | None = None


async def try_dependencies(settings: Settings, clock: Clock, console: TextIO) -> list[Dependency]:
    """Try every dependency as ``/ready`` does, and the channel's key or login. A failure is returned, not raised."""
    note: str | None = None

    async def try_channel() -> None:
        nonlocal note
        check_channel(settings)
        async with open_channel(settings, clock, console) as channel:
            await channel.check()
            if isinstance(channel, (HttpChannel, SmtpChannel)):
                note = await channel.try_key()

    try:
        async with connect_database(settings) as pool:
            found = [*await _try_database(settings, pool, clock), *await _look_at_pooler(settings, pool)]
    except (BirthdayError, *DATABASE_ERRORS) as error:
        reason = str(error) or type(error).__name__
        found = [Dependency(DATABASE, database_name(settings), reason)]
        if settings.rabbitmq_url is None:
            found.append(Dependency(QUEUE, queue_name(settings), reason))
    if settings.rabbitmq_url is not None:
        # RabbitMQ is tried apart from the database, because it must not fail if only the database is down.
        broker = RabbitMQBroker(settings.rabbitmq_url.get_secret_value())
        found.append(Dependency(QUEUE, queue_name(settings), await _complaint(partial(_try_broker, broker))))
    complaint = await _complaint(try_channel)
    found.append(Dependency(CHANNEL, channel_name(settings), complaint, note=note))
    receiver = make_receiver(settings, clock)
    if receiver is not None:
        where = f"delivery events to {mask_url(settings.events_url or '')}"
        found.append(Dependency("events", where, await _complaint(receiver.check), note="nothing was posted"))
        await receiver.close()
    return found


async def _try_database(settings: Settings, pool: asyncpg.Pool, clock: Clock) -> list[Dependency]:
    """Try the database, compare the clocks, and try the queue if it is in the database."""
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
    note = None if error or step else await _advice(pool)
    found.append(Dependency(MIGRATIONS, "of the database", error, step, note))
    if error is None and step is None:
        await warn_of_schema(pool)
    if settings.rabbitmq_url is None:
        complaint = await _complaint(partial(_try_broker, PostgresBroker(pool, where="the queue in the database")))
        polled = is_shared(pool) and settings.database_direct_url is None
        note = "polled, because DATABASE_DIRECT_URL is not set" if polled else None
        # A pending migration may create the table of the queue, so its absence is no error then.
        step = step and "the migrations"
        found.append(Dependency(QUEUE, queue_name(settings), None if step else complaint, step, note))
    return found


async def _advice(pool: asyncpg.Pool) -> str | None:
    """Say which migrations wait, and what for."""
    async with borrow(pool) as connection:
        states = await status(connection, load_migrations())
    return " ".join(f"{one.label} waits: {one.advice}" for one in states if one.advice) or None


async def _look_at_pooler(settings: Settings, pool: asyncpg.Pool) -> list[Dependency]:
    """Say which pooler is before the database, if any, and try the way past it."""
    pooler = await check_sessions(pool)
    found = []
    note = None
    if pooler is Pooler.TRANSACTION:
        missing = await missing_role_settings(pool)
        note = f"recommended: {'; '.join(missing)}" if missing else None
    elif is_shared(pool):
        note = "DATABASE_POOLER=transaction seems not to be needed, and makes statements slower"
    if pooler is not Pooler.NONE or note:
        found.append(Dependency("pooler", _POOLERS[pooler], note=note))
    if settings.database_direct_url is not None:

        async def try_direct() -> None:
            async with connect_directly(settings, pool):
                pass

        where = f"past the pooler: {database_name(settings.direct)}"
        found.append(Dependency("direct", where, await _complaint(try_direct)))
    return found


async def _try_broker(broker: Broker) -> None:
    async with checked_broker(broker):
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
