"""A retry that the queue does not confirm for a while, with a subscription that lives on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime, timedelta
from uuid import UUID

import asyncpg

from birthday.broker import Consumer
from birthday.broker.postgres import PostgresBroker
from birthday.channels import Delivered, Greeting, Outcome, Temporary
from birthday.clock import Clock
from birthday.core.message import ErrorType
from birthday.errors import UnavailableError
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, metric, parse


class LeaderlessBroker(PostgresBroker):
    """The queue in PostgreSQL, which confirms nothing while it has no leader."""

    has_leader = True
    fault: Exception | None = None
    refused = 0
    subscriptions = 0

    async def publish(
        self, message_ids: Sequence[UUID], delay: timedelta = timedelta(), due_at: Sequence[datetime] = ()
    ) -> None:
        """Publish, or confirm nothing, or fail once in a way that nobody expects."""
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        if not self.has_leader:
            self.refused += 1
            raise UnavailableError("queue", "no answer")
        await super().publish(message_ids, delay, due_at)

    @asynccontextmanager
    async def consume(self, prefetch: int) -> AsyncIterator[Consumer]:  # type: ignore[override] # any consumer will do
        """Subscribe, and count it."""
        self.subscriptions += 1
        async with super().consume(prefetch) as consumer:
            yield consumer


async def queued(pool: asyncpg.Pool, broker: LeaderlessBroker, count: int) -> Product:
    """Return an installation at 09:00 UTC whose queue has so many messages."""
    product = Product(pool, broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
    for _ in range(count):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    return product


def answer(channel: RecordingChannel) -> Outcome:
    """Refuse the first letter, for which a retry is published, and no other one."""
    return Temporary(ErrorType.EXTERNAL_API_ERROR, "busy", outage=False) if len(channel.sent) == 1 else Delivered()


async def test_a_retry_is_published_again_until_the_queue_confirms(pool: asyncpg.Pool) -> None:
    """The subscription is kept, with the deliveries that the worker holds, and other messages are acked meanwhile."""
    broker = LeaderlessBroker(pool)
    product = await queued(pool, broker, 2)
    broker.has_leader = False

    async def is_held_alone() -> bool:
        return (await broker.stats()).unacked == 1

    async def has_tried_again() -> bool:
        return broker.refused == refused

    channel = RecordingChannel(product.clock, lambda _: answer(channel))
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


class SecondHeldChannel(RecordingChannel):
    """Answers the second letter only once it is released."""

    def __init__(self, clock: Clock) -> None:
        """Refuse the first letter."""
        super().__init__(clock, lambda _: answer(self))
        self.released = asyncio.Event()

    async def send(self, greeting: Greeting) -> Outcome:
        """Record the letter, and wait if it is the second one."""
        outcome = await super().send(greeting)
        if len(self.sent) == 2:
            await self.released.wait()
        return outcome


async def test_outcomes_are_stored_while_a_retry_is_unpublished(pool: asyncpg.Pool) -> None:
    """What comes after the retry is stored and acked. A worker that stops waits until the retry is published."""
    broker = LeaderlessBroker(pool)
    product = await queued(pool, broker, 2)
    broker.has_leader = False
    channel = SecondHeldChannel(product.clock)
    pipeline = product.pipeline(channel, concurrency=1)
    running = asyncio.create_task(pipeline.run())

    async def is_held_alone() -> bool:
        return (await broker.stats()).unacked == 1

    await product.wait_for_statuses({"retrying": 1, "sending": 1})
    channel.released.set()
    await product.wait_for_statuses({"retrying": 1, "delivered": 1})
    await eventually(is_held_alone, "the delivered message is acked")
    pipeline.stop()
    await product.clock.wait_for_sleepers()
    assert not running.done()
    broker.has_leader = True
    product.clock.advance(timedelta(seconds=5))
    await running
    assert (await broker.stats()).unacked == 0
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 2})
    assert len(channel.sent) == 3


async def test_a_worker_that_is_cancelled_gives_unpublished_retries_back(pool: asyncpg.Pool) -> None:
    """It ends at once, and the queue delivers again what is not acked."""
    broker = LeaderlessBroker(pool)
    product = await queued(pool, broker, 1)
    broker.has_leader = False
    channel = RecordingChannel(product.clock, lambda _: answer(channel))
    running = asyncio.create_task(product.pipeline(channel).run())
    await product.wait_for_statuses({"retrying": 1})
    await product.clock.wait_for_sleepers()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    broker.has_leader = True
    product.clock.advance(timedelta(seconds=5))
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
    assert broker.refused == 1


async def test_a_bug_while_a_retry_is_published_does_not_end_the_worker(pool: asyncpg.Pool) -> None:
    """It is counted, and the worker subscribes again, so that the retry is not lost."""
    broker = LeaderlessBroker(pool)
    product = await queued(pool, broker, 1)
    broker.fault = RuntimeError("a bug")
    channel = RecordingChannel(product.clock, lambda _: answer(channel))

    async def has_subscribed_again() -> bool:
        return broker.subscriptions == 2

    async with product.working(channel):
        await eventually(has_subscribed_again, "the worker has subscribed again")
        product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"delivered": 1})
    assert metric(product.metrics, "background_failures_total", task="worker") == 1
