"""A retry that the queue does not confirm for a while, with a subscription that lives on."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, timedelta
from uuid import UUID

import asyncpg

from birthday.broker import Consumer
from birthday.broker.postgres import PostgresBroker
from birthday.channels import Delivered, Greeting, Outcome, Temporary
from birthday.core.message import ErrorType
from birthday.errors import UnavailableError
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, parse


class LeaderlessBroker(PostgresBroker):
    """The queue in PostgreSQL, which confirms nothing while it has no leader."""

    has_leader = True
    refused = 0
    subscriptions = 0

    async def publish(self, message_ids: Sequence[UUID], delay: timedelta = timedelta()) -> None:
        """Publish, or confirm nothing."""
        if not self.has_leader:
            self.refused += 1
            raise UnavailableError("queue", "no answer")
        await super().publish(message_ids, delay)

    @asynccontextmanager
    async def consume(self, prefetch: int) -> AsyncIterator[Consumer]:  # type: ignore[override] # any consumer will do
        """Subscribe, and count it."""
        self.subscriptions += 1
        async with super().consume(prefetch) as consumer:
            yield consumer


async def test_a_retry_is_published_again_until_the_queue_confirms(pool: asyncpg.Pool) -> None:
    """The subscription is kept, with the deliveries that the worker holds, and other messages are acked meanwhile."""
    broker = LeaderlessBroker(pool)
    product = Product(pool, broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
    for _ in range(2):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    broker.has_leader = False

    def answer(_: Greeting) -> Outcome:
        return Temporary(ErrorType.EXTERNAL_API_ERROR, "busy", outage=False) if len(channel.sent) == 1 else Delivered()

    async def is_held_alone() -> bool:
        return (await broker.stats()).unacked == 1

    async def has_tried_again() -> bool:
        return broker.refused == refused

    channel = RecordingChannel(product.clock, answer)
    async with product.working(channel):
        await product.wait_for_statuses({"retrying": 1, "delivered": 1})
        await eventually(is_held_alone, "the delivered message is acked")
        for refused in (1, 2, 3):
            await eventually(has_tried_again, "the retry is published again")
            await product.clock.wait_for_sleepers()
            broker.has_leader = refused == 3
            product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"delivered": 2})
    assert len(channel.sent) == 3
    assert broker.subscriptions == 1
