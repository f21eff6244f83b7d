"""Messages that are put into the queue some seconds before they are due, on both brokers."""

from datetime import date, timedelta
from uuid import uuid4

import asyncpg
import pytest

from benchmarks.seeds import make_messages
from birthday.broker import Broker, QueueStats
from birthday.broker.postgres import PostgresBroker
from birthday.channels import Delivered, Temporary
from birthday.core.message import BIRTHDAY, ErrorType
from birthday.scheduler.dispatcher import AHEAD_LIMIT, AHEAD_PAUSE
from birthday.store.changes import Actor
from birthday.store.pauses import set_paused
from birthday.store.users import delete_user
from birthday.telemetry.metrics import Metrics
from tests.support.channel import HeldChannel, RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, parse
from tests.support.users import TESTER

BORN = date(1990, 3, 1)
NINE = parse("2027-03-01T09:00:00Z")
AHEAD = timedelta(seconds=10)
SECOND = timedelta(seconds=1)
DOWN = Temporary(ErrorType.EXTERNAL_API_ERROR, "down")


@pytest.fixture
def product(pool: asyncpg.Pool, either_broker: Broker) -> Product:
    """An installation on either broker, as long before 09:00 UTC as messages may be in the queue."""
    return Product(pool, either_broker, ManualClock(NINE - AHEAD), Metrics(), ahead=AHEAD)


async def dispatch(product: Product) -> int:
    """Publish what is due, or soon is, and return how many messages."""
    return (await product.dispatcher.dispatch_once(product.clock.now())).published


async def queue_becomes(product: Product, ready: int = 0, held: int = 0, delayed: int = 0, consumers: int = 1) -> None:
    """Wait until so many messages are in the queue, with a worker, or waiting for a delay."""
    expected = QueueStats(ready=ready, unacked=held, delayed=delayed, dead=0, consumers=consumers)

    async def has_become() -> bool:
        return await product.broker.stats() == expected

    await eventually(has_become, f"{expected}")


async def test_a_message_is_in_the_queue_before_its_instant_and_not_earlier(product: Product) -> None:
    """Eleven seconds before is too early; the dispatcher comes back after one, and publishes."""
    product.clock.advance(-SECOND)
    await product.create(BORN)
    early = await product.dispatcher.dispatch_once(product.clock.now())
    assert (early.published, early.next_at) == (0, NINE - AHEAD)
    product.clock.advance(SECOND)
    ahead = await product.dispatcher.dispatch_once(product.clock.now())
    assert (ahead.published, ahead.next_at) == (1, product.clock.now() + AHEAD_PAUSE)
    assert await product.statuses() == {"queued": 1}


async def test_a_tick_publishes_few_that_are_not_due_and_the_next_one_follows_at_once(product: Product) -> None:
    """So a message that is due at once does not wait until a whole wave is in the queue."""
    async with product.pool.acquire() as connection:
        await make_messages(connection, AHEAD_LIMIT + 5, NINE, "scheduled")
    now = product.clock.now()
    first = await product.dispatcher.dispatch_once(now)
    assert (first.published, first.next_at) == (AHEAD_LIMIT, now)
    second = await product.dispatcher.dispatch_once(now)
    assert (second.published, second.next_at) == (5, now + AHEAD_PAUSE)


async def test_a_worker_waits_for_the_instant_and_sends_what_is_due_meanwhile(product: Product) -> None:
    """The message of 09:00 is sent at 09:00, by a worker that has it for long; one that is due now does not wait."""
    later = await product.create(BORN)
    now = await product.create(BORN, "Asia/Tokyo")
    assert await dispatch(product) == 2
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await channel.wait_for(1)
        await queue_becomes(product, held=1)
        product.clock.advance(AHEAD - SECOND)
        await product.wait_for_statuses({"delivered": 1, "queued": 1})
        product.clock.advance(SECOND)
        await product.wait_for_statuses({"delivered": 2})
    assert [(sent.greeting.email, sent.at) for sent in channel.sent] == [
        (f"{now}@example.com", NINE - AHEAD),
        (f"{later}@example.com", NINE),
    ]


async def test_more_wait_than_a_worker_may_hold(product: Product) -> None:
    """With one slot it may hold about half of 40; at the instant all go out, each once."""
    for _ in range(40):
        await product.create(BORN)
    assert await dispatch(product) == 40
    channel = RecordingChannel(product.clock)
    async with product.working(channel, concurrency=1) as pipeline:
        await queue_becomes(product, ready=40 - pipeline.prefetch, held=pipeline.prefetch)
        product.clock.advance(AHEAD)
        await product.wait_for_statuses({"delivered": 40})
    assert len({sent.greeting.message_id for sent in channel.sent}) == len(channel.sent) == 40


async def test_a_worker_that_stops_gives_back_what_is_not_due(product: Product) -> None:
    """It does not wait for the instant: another worker sends the message then."""
    await product.create(BORN)
    await dispatch(product)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await queue_becomes(product, held=1)
    await queue_becomes(product, ready=1, consumers=0)
    async with product.working(channel):
        await queue_becomes(product, held=1)
        product.clock.advance(AHEAD)
        await product.wait_for_statuses({"delivered": 1})
    assert len(channel.sent) == 1


async def test_what_falls_due_while_a_worker_stops_is_sent(product: Product) -> None:
    """Until its last send has ended, nobody else gets what it holds."""
    await product.create(BORN, "Asia/Tokyo")
    await product.create(BORN)
    await dispatch(product)
    channel = HeldChannel(product.clock)
    async with product.working(channel) as pipeline:
        await channel.wait_for(1)
        await queue_becomes(product, held=2)
        pipeline.stop()
        product.clock.advance(AHEAD)
        await channel.wait_for(2)
        channel.release()
    assert await product.statuses() == {"delivered": 2}


async def test_a_probe_is_looked_for_behind_what_is_not_due(product: Product) -> None:
    """The circuit is open. A message that has not failed yet comes after some that are early: it is the probe."""
    await product.create(BORN, "Asia/Tokyo")
    await dispatch(product)
    channel = RecordingChannel(product.clock, lambda _letter: DOWN)
    async with product.working(channel, concurrency=1, threshold=1):
        await product.wait_for_statuses({"retrying": 1})
        failed = channel.sent[0].greeting.message_id
        await product.broker.publish([failed])
        early = [uuid4() for _ in range(3)]
        await product.broker.publish(early, due_at=[product.clock.now() + timedelta(seconds=50)] * len(early))
        fresh = await product.create(BORN, "Asia/Tokyo")
        await dispatch(product)
        channel.answer = lambda letter: DOWN if letter.message_id == failed else Delivered()
        product.clock.advance(timedelta(seconds=31))
        await channel.wait_for(2)
    assert channel.sent[1].greeting.email == f"{fresh}@example.com"


async def test_what_is_due_much_later_is_not_held(product: Product) -> None:
    """A clock that was wrong by an hour has published it: it goes round, and makes room for others."""
    await product.create(BORN)
    [message_id] = [row["id"] for row in await product.pool.fetch("SELECT id FROM message_logs")]
    await product.pool.execute(
        "UPDATE message_logs SET status = 'queued', scheduled_at = $1", NINE + timedelta(hours=1)
    )
    await product.broker.publish([message_id], due_at=[NINE + timedelta(hours=1)])
    async with product.working(RecordingChannel(product.clock)):
        await queue_becomes(product, delayed=1)


async def test_who_is_deleted_in_the_last_seconds_is_not_greeted(product: Product) -> None:
    """The message is in a worker's hands already: it is cancelled, and the worker sends nothing."""
    user_id = await product.create(BORN)
    await dispatch(product)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await queue_becomes(product, held=1)
        await delete_user(product.pool, user_id, product.clock.now(), TESTER)
        product.clock.advance(AHEAD)
        await queue_becomes(product)
    assert await product.statuses() == {"cancelled": 1}
    assert channel.sent == []


async def test_what_is_paused_is_not_published_ahead(product: Product) -> None:
    """A pause of the type leaves its messages where they are."""
    await product.create(BORN)
    async with product.pool.acquire() as connection:
        await set_paused(connection, [BIRTHDAY], paused=True, now=product.clock.now(), by=Actor("ada@host"))
    await product.pauses.refresh()
    assert await dispatch(product) == 0
    assert await product.statuses() == {"scheduled": 1}


async def test_the_next_to_fall_due_are_published_first(pool: asyncpg.Pool) -> None:
    """A worker holds a limited number, so they must be those that it can send first."""
    product = Product(pool, PostgresBroker(pool), ManualClock(NINE - AHEAD), Metrics(), ahead=AHEAD)
    async with pool.acquire() as connection:
        ids = await make_messages(connection, 4, NINE, "scheduled")
    for message_id, seconds in zip(ids, (0, -3, -1, -2), strict=True):
        await pool.execute(
            "UPDATE message_logs SET scheduled_at = scheduled_at + $2::interval WHERE id = $1",
            message_id,
            timedelta(seconds=seconds),
        )
    assert await dispatch(product) == 4
    due = await pool.fetch(
        """
        SELECT q.due_at, m.scheduled_at FROM queue_messages q
        JOIN message_logs m ON m.id = (q.body::json ->> 'messageId')::uuid ORDER BY q.id
        """
    )
    instants = [NINE + timedelta(seconds=seconds) for seconds in (-3, -2, -1, 0)]
    assert [tuple(row) for row in due] == [(instant, instant) for instant in instants]
