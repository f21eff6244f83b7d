"""Pause and resume, on both brokers: nothing is published or consumed, nothing is lost, and everybody knows soon."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import date, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.channels import Greeting, Outcome
from birthday.core.message import BIRTHDAY
from birthday.operations.pauses import EVERY_SECONDS, Pauses
from birthday.store.changes import Actor
from birthday.store.pauses import read_pauses, set_paused
from birthday.telemetry.metrics import Metrics
from tests.support.api import running_api
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, metric, parse
from tests.support.tasks import background

BORN = date(1990, 3, 1)


@pytest.fixture
def product(pool: asyncpg.Pool, either_broker: Broker) -> Product:
    """An installation at 09:00 UTC on 1 March 2027, on either broker."""
    return Product(pool, either_broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())


class SlowChannel(RecordingChannel):
    """Accepts each letter, and says so only when it is told to."""

    def __init__(self, clock: ManualClock) -> None:
        """Hold every answer back."""
        super().__init__(clock)
        self.let_go = asyncio.Event()

    async def send(self, letter: Greeting) -> Outcome:
        """Record the letter, and wait."""
        outcome = await super().send(letter)
        await self.let_go.wait()
        return outcome


class InterruptingBroker(PostgresBroker):
    """The queue in PostgreSQL, with something that happens as soon as a batch has been published."""

    after_publishing: Callable[[], Awaitable[None]]

    async def publish(
        self, message_ids: Sequence[UUID], delay: timedelta = timedelta(), due_at: Sequence[datetime] = ()
    ) -> None:
        """Publish, and let it happen."""
        await super().publish(message_ids, delay, due_at)
        await self.after_publishing()


async def switch(product: Product, *, paused: bool) -> None:
    """Pause or resume, as the command does, and let the processes of the test know."""
    async with product.pool.acquire() as connection:
        await set_paused(connection, [BIRTHDAY], paused=paused, now=product.clock.now(), by=Actor("ada@host"))
    await product.pauses.refresh()


async def lose_all_but_one(product: Product) -> None:
    """Let the queue lose its deliveries, but for one."""
    left = (await product.broker.stats()).ready - 1
    async with product.broker.consume(prefetch=left) as consumer, asyncio.timeout(60):
        while left:
            lost = await consumer.receive(left, 0)
            await consumer.ack(lost)
            left -= len(lost)

    async def has_one() -> bool:
        stats = await product.broker.stats()
        # While the consumer leaves, it may still hold that delivery, or be about to get it.
        return (stats.ready, stats.consumers) == (1, 0)

    await eventually(has_one, "the last delivery is back")


async def has_no_consumer(product: Product) -> bool:
    """Say whether nobody is subscribed."""
    return (await product.broker.stats()).consumers == 0


async def test_during_a_pause_two_workers_and_a_dispatcher_stand_still(product: Product) -> None:
    """What is queued stays in the queue, what falls due stays scheduled; after it everything goes out once."""
    channel = RecordingChannel(product.clock)
    for _ in range(30):
        await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    await switch(product, paused=True)
    async with product.working(channel) as first, product.working(channel) as second:
        for _ in range(20):
            await product.create(BORN)
        dispatched = await product.dispatcher.dispatch_once(product.clock.now())
        assert (dispatched.published, dispatched.next_at) == (0, None)
        product.clock.advance(timedelta(hours=2))
        await product.janitor.recover_once(product.clock.now())
        stats = await product.broker.stats()
        assert (stats.ready, stats.unacked, stats.consumers) == (30, 0, 0)
        assert await product.statuses() == {"queued": 30, "scheduled": 20}
        assert not first.receiving
        assert not second.receiving
        assert channel.sent == []
        await switch(product, paused=False)
        await product.wait_for_statuses({"delivered": 30, "scheduled": 20})
        await product.dispatcher.dispatch_once(product.clock.now())
        await product.wait_for_statuses({"delivered": 50})
    assert len(channel.sent) == 50


async def test_a_pause_finishes_what_is_being_sent_and_puts_the_rest_back_unsent(product: Product) -> None:
    """Four of thirty are with the service: they are delivered. No attempt of the others is counted."""
    channel = SlowChannel(product.clock)
    for _ in range(30):
        await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    async with product.working(channel, concurrency=4):
        await channel.wait_for(4)
        await switch(product, paused=True)
        channel.let_go.set()
        await eventually(lambda: has_no_consumer(product), "the worker has left the queue")
        assert (await product.statuses())["delivered"] == len(channel.sent) == 4
        assert "sending" not in await product.statuses()
        assert await product.pool.fetchval("SELECT sum(attempts) FROM message_logs") == 4
        assert (await product.broker.stats()).ready == 26
        await switch(product, paused=False)
        await product.wait_for_statuses({"delivered": 30})
    assert len(channel.sent) == 30
    assert await product.pool.fetchval("SELECT max(attempts) FROM message_logs") == 1


async def test_a_dispatcher_in_the_middle_of_a_backlog_stops_after_the_batch(product: Product) -> None:
    """A backlog of three batches, and a pause that comes while the first one is published."""
    for _ in range(12):
        await asyncio.gather(*(product.create(BORN) for _ in range(100)))
    broker = InterruptingBroker(product.pool)
    interrupted = Product(product.pool, broker, product.clock, product.metrics)
    broker.after_publishing = lambda: switch(interrupted, paused=True)
    assert (await interrupted.dispatcher.dispatch_once(product.clock.now())).published == 500
    assert await product.statuses() == {"queued": 500, "scheduled": 700}


async def test_a_clock_that_becomes_wrong_holds_the_worker_as_a_pause_does(product: Product) -> None:
    """What is being sent is finished, the rest is put back unsent, and goes out as soon as the clock is right."""
    channel = SlowChannel(product.clock)
    for _ in range(30):
        await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    async with product.working(channel, concurrency=4):
        await channel.wait_for(4)
        await product.clock.judge("an hour ahead")
        channel.let_go.set()
        await eventually(lambda: has_no_consumer(product), "the worker has left the queue")
        assert (await product.statuses())["delivered"] == len(channel.sent) == 4
        assert await product.pool.fetchval("SELECT sum(attempts) FROM message_logs") == 4
        await product.clock.judge(None)
        await product.wait_for_statuses({"delivered": 30})
    assert len(channel.sent) == 30


async def test_a_worker_that_starts_or_stops_during_a_pause_sends_nothing(product: Product) -> None:
    """The pause is in the database: another process finds it at its start, and ends as usual."""
    channel = RecordingChannel(product.clock)
    await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    await switch(product, paused=True)
    restarted = Product(product.pool, product.broker, product.clock, Metrics())
    await restarted.pauses.refresh()
    assert restarted.pauses.is_paused(BIRTHDAY)
    async with restarted.working(channel):
        assert (await restarted.dispatcher.dispatch_once(product.clock.now())).published == 0
        assert await has_no_consumer(product)
    assert channel.sent == []
    assert await product.statuses() == {"queued": 1}


async def test_every_process_knows_within_five_seconds_and_wakes_at_once(product: Product) -> None:
    """Three processes that poll by the clock: after two seconds all have stopped, and after two more all go on."""
    channel = RecordingChannel(product.clock)
    processes = [Product(product.pool, product.broker, product.clock, Metrics()) for _ in range(3)]
    poll = timedelta(seconds=EVERY_SECONDS)
    assert poll <= timedelta(seconds=5)
    async with AsyncExitStack() as stack:
        for process in processes:
            await stack.enter_async_context(background(process.pauses.watch()))
        for process in processes[:2]:
            await stack.enter_async_context(process.working(channel))
        for paused in (True, False):
            async with product.pool.acquire() as connection:
                await set_paused(connection, [BIRTHDAY], paused=paused, now=product.clock.now(), by=Actor("ada@host"))
            await product.clock.wait_for_sleepers(3)
            product.clock.advance(poll)
            for process in processes:
                async with asyncio.timeout(60):
                    await process.pauses.wait_until(held=paused)
                assert metric(process.metrics, "paused", message_type=BIRTHDAY) == paused
            if paused:
                await eventually(lambda: has_no_consumer(product), "the workers have left the queue")
                await product.create(BORN)
                assert (await processes[2].dispatcher.dispatch_once(product.clock.now())).published == 0
        assert (await processes[2].dispatcher.dispatch_once(product.clock.now())).published == 1
        await product.wait_for_statuses({"delivered": 1})


async def test_what_waits_longer_than_the_catch_up_window_expires_though_it_is_paused(product: Product) -> None:
    """Two days are two days; planning goes on meanwhile."""
    await product.create(BORN)
    await product.create(date(1990, 3, 4))
    await switch(product, paused=True)
    product.clock.advance(timedelta(days=2))
    await product.janitor.recover_once(product.clock.now())
    await product.planner.plan_once(product.clock.now())
    assert await product.statuses() == {"expired": 1, "scheduled": 1}


async def test_after_a_pause_the_queue_is_not_published_a_second_time(product: Product) -> None:
    """A long pause is no sign of loss: copies are made only when something is not taken for long after it."""
    for _ in range(2):
        await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    await lose_all_but_one(product)
    await switch(product, paused=True)
    product.clock.advance(timedelta(hours=20))
    await product.janitor.recover_once(product.clock.now())
    await switch(product, paused=False)
    for minutes, ready in ((1, 1), (13, 1), (1, 3)):
        product.clock.advance(timedelta(minutes=minutes))
        await product.janitor.recover_once(product.clock.now())
        assert (await product.broker.stats()).ready == ready


async def test_an_operator_whose_clock_is_ahead_stops_no_rescue(product: Product) -> None:
    """When a pause ended is what this process has seen, not what the clock of another host has written."""
    for _ in range(2):
        await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    for paused in (True, False):
        async with product.pool.acquire() as connection:
            ahead = product.clock.now() + timedelta(hours=3)
            await set_paused(connection, [BIRTHDAY], paused=paused, now=ahead, by=Actor("ada@host"))
        await product.pauses.refresh()
    later_process = Product(product.pool, product.broker, product.clock, product.metrics)
    await later_process.pauses.refresh()
    for process in (later_process, product):
        await lose_all_but_one(product)
        for minutes, ready in ((14, 1), (2, 3)):
            product.clock.advance(timedelta(minutes=minutes))
            await process.janitor.recover_once(product.clock.now())
            assert (await product.broker.stats()).ready == ready


async def test_who_paused_and_since_when_stays_until_it_is_resumed(product: Product) -> None:
    """A second pause changes nothing; resuming is recorded too, and so is what was never paused."""

    async def change(by: str, *, paused: bool) -> tuple[bool, str, str]:
        async with product.pool.acquire() as connection:
            await set_paused(connection, [BIRTHDAY], paused=paused, now=product.clock.now(), by=Actor(by))
            [pause] = await read_pauses(connection)
        product.clock.advance(timedelta(hours=1))
        return pause.is_paused, pause.changed_by, f"{pause.changed_at:%H:%M}"

    assert await change("ada@a", paused=False) == (False, "ada@a", "09:00")
    assert await change("ben@b", paused=True) == (True, "ben@b", "10:00")
    assert await change("cyd@c", paused=True) == (True, "ben@b", "10:00")
    assert await change("dan@d", paused=False) == (False, "dan@d", "12:00")


async def test_health_shows_what_is_paused(product: Product) -> None:
    """A list of message types, empty if nothing is; a pause is no illness."""
    async with running_api(product.pool, clock=product.clock) as api:
        assert (await api.get("/health")).json["paused"] == []
        await switch(product, paused=True)
        await api.context.pauses.refresh()
        for path in ("/health", "/health/detailed"):
            health = (await api.get(path)).json
            assert (health["status"], health["paused"]) == ("healthy", [BIRTHDAY])


async def test_without_a_database_what_was_known_holds(database_url: str) -> None:
    """A process that cannot ask goes on as it was told last, and counts that it could not ask."""
    clock, metrics = ManualClock(parse("2027-03-01T09:00:00Z")), Metrics()
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        pauses = Pauses(pool, clock, metrics)
        async with pool.acquire() as connection:
            await set_paused(connection, [BIRTHDAY], paused=True, now=clock.now(), by=Actor("ada@host"))
        await pauses.refresh()
        await pool.execute("ALTER TABLE pauses RENAME TO away")
        async with background(pauses.watch()):
            await clock.wait_for_sleepers()
            clock.advance(timedelta(seconds=EVERY_SECONDS))

            async def is_counted() -> bool:
                return metric(metrics, "collector_errors_total", collector="pauses") == 1

            await eventually(is_counted, "the failure is counted")
            assert pauses.is_paused(BIRTHDAY)
