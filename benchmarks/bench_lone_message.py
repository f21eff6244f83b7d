"""A message that is alone, from its publishing to its arrival at the message service, against the plain path.

The messages come one at a time with pauses in between, longer than any batch waits.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from statistics import median

import asyncpg
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeds
from benchmarks.measure import Comparison, compare
from benchmarks.message_service import MessageService
from benchmarks.processes import birthday, module
from benchmarks.scale import Run, Scale
from benchmarks.targets import LONE_MESSAGE
from birthday.broker.rabbitmq import RabbitMQBroker

PAUSE_SECONDS = 0.05
SETTLED_SECONDS = 0.5


async def publish_one_by_one(database: str, queue: str, messages: int) -> list[float]:
    """Publish messages one at a time; return when each publishing began, by the clock of ``time.time``."""
    connection = await asyncpg.connect(database)
    broker = RabbitMQBroker(queue)
    published_at = []
    try:
        due_at = datetime.now(UTC) - timedelta(seconds=1)
        ids = await seeds.make_messages(connection, messages, due_at, "queued")
        await asyncio.sleep(SETTLED_SECONDS)
        for message_id in ids:
            published_at.append(time.time())
            await broker.publish([message_id])
            await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await broker.close()
        await connection.close()
    return published_at


def test_lone_message(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, service: MessageService, database_url: str, queue_url: str
) -> None:
    """Batches never make a lone message wait."""

    def latency() -> float:
        service.reset()
        published_at: list[float] = run(publish_one_by_one(database_url, queue_url, scale.lone))
        arrivals = service.wait_for(scale.lone)
        # The service notes whole milliseconds: half of one is missing on average.
        return 0.5 + 1000 * median(arrived - sent for arrived, sent in zip(arrivals, published_at, strict=True))

    def ours() -> float:
        settings = {"DATABASE_URL": database_url, "RABBITMQ_URL": queue_url, "MESSAGE_SERVICE_URL": service.url}
        with birthday("worker", **settings):
            return latency()

    def plain() -> float:
        with module("benchmarks.plain_worker", database_url, queue_url, service.url):
            return latency()

    run(_declare(queue_url))
    compare(benchmark, Comparison(LONE_MESSAGE, "ms"), ours, plain, scale.rounds)


async def _declare(queue: str) -> None:
    broker = RabbitMQBroker(queue)
    try:
        await broker.check()
    finally:
        await broker.close()
