"""The queue of the settings: RabbitMQ, or a table of the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker, is_refusal
from birthday.config import Role, Settings
from birthday.errors import AwayError, UnavailableError
from birthday.wiring.database import connect_directly
from birthday.wiring.names import database_name

log = structlog.get_logger()


@asynccontextmanager
async def open_sessions(settings: Settings, pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Pool | None]:
    """Yield the pool over which a worker is notified; None if there is no worker, RabbitMQ, or no DATABASE_DIRECT_URL.

    Raises:
        AwayError: if DATABASE_DIRECT_URL cannot be reached.
        UnavailableError: if it refuses us, or leads to another database.
    """
    if Role.WORKER not in settings.role or settings.rabbitmq_url is not None:
        yield None
        return
    async with connect_directly(settings, pool) as sessions:
        yield sessions


@asynccontextmanager
async def open_broker(
    settings: Settings, pool: asyncpg.Pool, sessions: asyncpg.Pool | None = None, *, must_answer: bool = True
) -> AsyncIterator[Broker]:
    """Yield the queue: RabbitMQ if RABBITMQ_URL is set, otherwise PostgreSQL.

    Without ``must_answer`` RabbitMQ may be unavailable: that is only logged. Consumers of PostgreSQL are notified over
    ``sessions``, if ``pool`` has none.

    Raises:
        AwayError: if RabbitMQ cannot be reached.
        UnavailableError: if it refuses us, or its topology is not ours.
    """
    broker: Broker
    if settings.rabbitmq_url is None:
        broker, must_answer = PostgresBroker(pool, sessions, where=f"the queue in {database_name(settings)}"), True
    else:
        broker = RabbitMQBroker(settings.rabbitmq_url.get_secret_value())
    async with checked_broker(broker, must_answer=must_answer):
        yield broker


@asynccontextmanager
async def checked_broker(broker: Broker, *, must_answer: bool = True) -> AsyncIterator[Broker]:
    """Check ``broker``, yield it, and close it. Without ``must_answer`` a failed check is only logged."""
    try:
        try:
            await broker.check()
        except UnavailableError as error:
            if must_answer and is_refusal(error):
                raise
            if must_answer:
                raise AwayError(error.resource, str(error)) from error
            log.warning("broker.away", error=str(error))
        yield broker
    finally:
        await broker.close()


def needs_queue(settings: Settings) -> bool:
    """Say whether the roles need the queue. The role api alone does not: it creates users without it."""
    return settings.role != {Role.API}
