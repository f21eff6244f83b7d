"""Both kinds of queue, for tests that must pass with either."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker


@pytest.fixture(params=["postgres", "rabbitmq"])
async def either_broker(request: pytest.FixtureRequest, pool: asyncpg.Pool) -> AsyncIterator[Broker]:
    """Return a broker whose queue is empty. Each test runs with the queue in PostgreSQL, and with RabbitMQ."""
    broker: Broker = PostgresBroker(pool)
    if request.param == "rabbitmq":
        broker = RabbitMQBroker(request.getfixturevalue("rabbitmq_url"))
    yield broker
    await broker.close()
