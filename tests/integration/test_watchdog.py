"""The watch on the consumer, with a subscription that really brings nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date, timedelta

import asyncpg

from birthday.broker import Consumer, Delivery
from birthday.broker.postgres import PostgresBroker
from birthday.broker.protocol import Wait
from birthday.telemetry.metrics import Metrics
from birthday.worker.watchdog import EVERY_SECONDS, UNCOUNTED_CHECKS, Watchdog
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, metric, parse


class DeafConsumer:
    """A subscription whose channel died without a word: it holds, and brings nothing."""

    lost = False

    async def receive(self, most: int, wait: Wait) -> list[Delivery]:  # noqa: ARG002 - as the protocol has it
        """Wait for ever."""
        await asyncio.get_running_loop().create_future()
        return []

    async def cease(self) -> None:
        """Bring no less than nothing."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: nothing was handed out."""

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Do nothing: nothing was handed out."""


class AtFirstDeafBroker(PostgresBroker):
    """The queue in PostgreSQL, whose first consumer hears nothing."""

    subscriptions = 0

    @asynccontextmanager
    async def consume(self, prefetch: int) -> AsyncIterator[Consumer]:  # type: ignore[override] # any consumer will do
        """Subscribe; the first one in vain."""
        self.subscriptions += 1
        if self.subscriptions == 1:
            yield DeafConsumer()
            return
        async with super().consume(prefetch) as consumer:
            yield consumer


async def test_a_worker_that_hears_nothing_while_messages_wait_subscribes_anew(pool: asyncpg.Pool) -> None:
    """Not at the first suspicion, but at the second. The suspicion is over when the message is delivered."""
    broker = AtFirstDeafBroker(pool)
    product = Product(pool, broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
    await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    channel = RecordingChannel(product.clock)
    async with product.working(channel) as pipeline:
        watchdog = Watchdog(pipeline, broker.stats, product.clock, product.metrics, 0)
        watching = asyncio.create_task(watchdog.run())
        for suspicious in (False, True):
            await product.clock.wait_for_sleepers()
            assert watchdog.suspicious is suspicious
            assert metric(product.metrics, "consumer_restarts_total") == 0
            product.clock.advance(timedelta(seconds=EVERY_SECONDS))
        await product.clock.wait_for_sleepers()
        suspicions = [watchdog.suspicious]
        await product.wait_for_statuses({"delivered": 1})
        assert [*suspicions, watchdog.suspicious] == [True, False]
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    assert metric(product.metrics, "consumer_restarts_total") == 1
    assert broker.subscriptions == 2


async def test_a_worker_that_the_queue_does_not_count_subscribes_anew(pool: asyncpg.Pool) -> None:
    """If the queue has no consumer in many checks, ours is replaced before a message waits, and not once more."""
    broker = AtFirstDeafBroker(pool)
    product = Product(pool, broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
    async with product.working(RecordingChannel(product.clock)) as pipeline:
        watchdog = Watchdog(pipeline, broker.stats, product.clock, product.metrics, 0)
        watching = asyncio.create_task(watchdog.run())
        restarts = []
        for _ in range(UNCOUNTED_CHECKS + 1):
            await product.clock.wait_for_sleepers()
            restarts.append(metric(product.metrics, "consumer_restarts_total"))
            product.clock.advance(timedelta(seconds=EVERY_SECONDS))
        assert restarts == [0] * UNCOUNTED_CHECKS + [1]

        async def is_counted() -> bool:
            return (await broker.stats()).consumers == 1

        await eventually(is_counted, "the queue counts the new subscription")
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    assert broker.subscriptions == 2
