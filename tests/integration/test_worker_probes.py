"""How a worker chooses its probes, on a queue in PostgreSQL."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

import asyncpg

from birthday.broker.postgres import PostgresBroker
from birthday.channels import Delivered, Temporary
from birthday.core.message import ErrorType
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, parse

COUNT = 60
DOWN = Temporary(ErrorType.EXTERNAL_API_ERROR, "down")


class EarlyBroker(PostgresBroker):
    """Delivers at once what is delayed, as a broker may: it comes before the end of the queue, as if that were long."""

    async def publish(
        self, message_ids: Sequence[UUID], delay: timedelta = timedelta(), due_at: Sequence[datetime] = ()
    ) -> None:
        """Publish without the delay."""
        del delay
        await super().publish(message_ids, due_at=due_at)


async def test_an_outage_ends_though_the_end_of_the_queue_is_never_reached(pool: asyncpg.Pool) -> None:
    """Every message has failed, and there are so many that those that are given back come again and again."""
    product = Product(pool, EarlyBroker(pool), ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
    for _ in range(COUNT):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    await pool.execute("UPDATE message_logs SET failures = 1, failed_at = scheduled_at")
    channel = RecordingChannel(product.clock, lambda _letter: DOWN)
    async with product.working(channel, concurrency=1, threshold=1):
        await channel.wait_for(1)
        await product.clock.wait_for_sleepers()
        channel.answer = lambda _letter: Delivered()
        product.clock.advance(timedelta(seconds=31))
        await product.wait_for_statuses({"delivered": COUNT})
    assert len(channel.sent) == COUNT + 1
