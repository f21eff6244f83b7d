"""The dispatcher against aiormq alone: rows locked, published, confirmed and marked; and the publishing by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiormq
import asyncpg
from pamqp import commands
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeds
from benchmarks.measure import Comparison, compare
from benchmarks.scale import Run, Scale
from benchmarks.targets import DISPATCHER
from birthday.broker.protocol import encode_payload
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.core.ident import uuid7
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.product import Product

IN_FLIGHT = 500
QUEUE = "bare"


@asynccontextmanager
async def _product(database: str, queue: str, now: datetime) -> AsyncIterator[Product]:
    async with asyncpg.create_pool(database, min_size=2, max_size=20) as pool:
        broker = RabbitMQBroker(queue)
        try:
            await broker.check()
            yield Product(pool, broker, ManualClock(now), Metrics())
        finally:
            await broker.close()


async def dispatch(database: str, queue: str, messages: int) -> float:
    """Return how many due messages a second are confirmed by the broker and marked in the database."""
    now = datetime.now(UTC)
    async with _product(database, queue, now) as product:
        async with product.pool.acquire() as connection:
            await seeds.make_messages(connection, messages, now - timedelta(seconds=1), "scheduled")
        started = time.perf_counter()
        published = 0
        while published < messages:
            published += (await product.dispatcher.dispatch_once(now)).published
        seconds = time.perf_counter() - started
        assert published == messages
        assert await product.statuses() == {"queued": messages}
    return messages / seconds


async def publish_bare(queue: str, messages: int) -> float:
    """Return how many messages of the same size a second a quorum queue confirms, with 500 unconfirmed at a time."""
    body = encode_payload(uuid7(datetime.now(UTC)))
    properties = commands.Basic.Properties(delivery_mode=2, content_type="application/json")
    connection = await aiormq.connect(queue)
    try:
        channel = await connection.channel(publisher_confirms=True)
        await channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        left = iter(range(messages))

        async def slot() -> None:
            for _ in left:
                confirmed = await channel.basic_publish(body, routing_key=QUEUE, properties=properties, mandatory=True)
                assert isinstance(confirmed, commands.Basic.Ack)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as slots:
            for _ in range(IN_FLIGHT):
                slots.create_task(slot())
        seconds = time.perf_counter() - started
        await channel.queue_delete(QUEUE)
    finally:
        await connection.close()
    return messages / seconds


def test_dispatcher(benchmark: BenchmarkFixture, scale: Scale, run: Run, database_url: str, queue_url: str) -> None:
    """A burst that falls due at one instant is published faster than aiormq does with 500 confirms in flight."""
    compare(
        benchmark,
        Comparison(DISPATCHER, "messages/s"),
        lambda: run(dispatch(database_url, queue_url, scale.messages)),
        lambda: run(publish_bare(queue_url, scale.messages)),
        scale.rounds,
    )
