"""The dispatcher on a real database and broker."""

import asyncio
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest

from benchmarks.seeds import make_messages
from birthday.broker import Delivery
from birthday.broker.postgres import PostgresBroker
from birthday.broker.protocol import encode_payload
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.errors import UnavailableError
from birthday.scheduler.dispatcher import TICK_LIMIT
from birthday.store.dispatching import lock_due, lock_next
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.product import Product, metric, parse

LATE_EVENING = parse("2027-03-01T22:00:00Z")


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 08:00 UTC on 1 March 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-03-01T08:00:00Z")), Metrics())


async def receive_all(product: Product, count: int) -> list[Delivery]:
    """Take ``count`` deliveries off the queue, in the order in which they come."""
    deliveries: list[Delivery] = []
    async with asyncio.timeout(60), product.broker.consume(count) as consumer:
        while len(deliveries) < count:
            deliveries += await consumer.receive(count, 0.1)
        await consumer.ack(deliveries)
    return deliveries


async def test_nothing_is_published_before_its_instant_and_the_next_one_is_known(product: Product) -> None:
    """A second early is too early; the dispatcher says when to come back, and then publishes."""
    await product.create(date(1990, 3, 1))
    product.clock.advance(timedelta(minutes=59, seconds=59))
    early = await product.dispatcher.dispatch_once(product.clock.now())
    assert (early.published, early.next_at) == (0, parse("2027-03-01T09:00:00Z"))
    product.clock.advance(timedelta(seconds=1))
    due = await product.dispatcher.dispatch_once(product.clock.now())
    assert (due.published, due.next_at) == (1, None)
    assert await product.statuses() == {"queued": 1}
    assert metric(product.metrics, "messages_queued_total") == 1


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_batch_reads_no_more_than_its_own_messages(product: Product, mode: str) -> None:
    """However many are due, a batch is found in the order of the index, with a plan for any arguments too."""
    now = product.clock.now()
    async with product.pool.acquire() as connection:
        await make_messages(connection, 2000, now, "scheduled")
        async with connection.transaction():
            await connection.execute("SELECT set_config('plan_cache_mode', $1, true)", mode)
            read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'message_logs'"
            before = await connection.fetchval(read)
            ids = await lock_due(connection, now, now - timedelta(days=1), now + timedelta(days=1), 50)
            assert (len(ids), await connection.fetchval(read) - before <= 200) == (50, True)
            before = await connection.fetchval(read)
            ahead = await lock_next(connection, now - timedelta(seconds=10), now, 50)
            assert (len(ahead), await connection.fetchval(read) - before <= 200) == (50, True)


async def test_a_backlog_goes_out_in_the_order_in_which_local_birthdays_end(product: Product) -> None:
    """Due at once in two zones: the one whose day is over first is published first."""
    product.clock.advance(parse("2027-03-01T18:00:00Z") - product.clock.now())
    for zone in ("America/Los_Angeles", "Asia/Tokyo", "Europe/Berlin"):
        await product.create(date(1990, 3, 1 if zone != "Asia/Tokyo" else 2), zone)
    product.clock.advance(timedelta(hours=7))
    await product.dispatcher.dispatch_once(product.clock.now())
    order = [delivery.message_id for delivery in await receive_all(product, 3)]
    rows = await product.pool.fetch("SELECT id FROM message_logs ORDER BY ends_at")
    assert order == [UUID(bytes=row["id"].bytes) for row in rows]


async def test_dispatchers_at_the_same_time_publish_each_message_once(product: Product) -> None:
    """Four dispatchers share 300 due messages."""
    await asyncio.gather(*(product.create(date(1990, 3, 1)) for _ in range(300)))
    product.clock.advance(timedelta(hours=1))
    results = await asyncio.gather(*(product.dispatcher.dispatch_once(product.clock.now()) for _ in range(4)))
    assert sum(result.published for result in results) == 300
    deliveries = await receive_all(product, 300)
    assert len({delivery.message_id for delivery in deliveries}) == 300


async def test_without_a_confirm_nothing_becomes_queued(product: Product) -> None:
    """The broker is down: the tick fails, the message stays scheduled, and the next tick publishes it."""
    await product.create(date(1990, 3, 1))
    product.clock.advance(timedelta(hours=1))
    down = Product(product.pool, RabbitMQBroker("amqp://127.0.0.1:1/"), product.clock, product.metrics)
    with pytest.raises(UnavailableError):
        await down.dispatcher.dispatch_once(product.clock.now())
    assert await product.statuses() == {"scheduled": 1}
    assert metric(product.metrics, "messages_queued_total") == 0
    assert (await product.dispatcher.dispatch_once(product.clock.now())).published == 1


async def test_what_is_later_than_the_catch_up_window_is_not_published(product: Product) -> None:
    """After an outage of three days the message of the first day stays behind, for the janitor to expire."""
    await product.create(date(1990, 3, 1))
    product.clock.advance(timedelta(days=3))
    assert (await product.dispatcher.dispatch_once(product.clock.now())).published == 0


async def test_what_falls_due_during_a_burst_does_not_wait_for_its_end(product: Product) -> None:
    """One tick publishes so much and asks to be called again; what has fallen due by then takes its place in order.

    The backlog is not read again for its last deadline while ticks are full: what ends later has a tick of its own.
    """
    await insert_due(product, TICK_LIMIT + 700, timedelta(hours=15))
    dispatcher = product.dispatcher
    burst = await dispatcher.dispatch_once(product.clock.now())
    assert (burst.published, burst.next_at) == (TICK_LIMIT, product.clock.now())

    await insert_due(product, 1, timedelta(hours=1))
    await insert_due(product, 1, timedelta(hours=16))
    rest = await dispatcher.dispatch_once(product.clock.now())
    assert (rest.published, rest.next_at) == (701, product.clock.now())
    last = await dispatcher.dispatch_once(product.clock.now())
    assert (last.published, last.next_at) == (1, None)

    [first] = await product.pool.fetchval("SELECT array_agg(id) FROM message_logs WHERE ends_at < $1", LATE_EVENING)
    bodies = await product.pool.fetch("SELECT body FROM queue_messages ORDER BY id OFFSET $1 LIMIT 1", TICK_LIMIT)
    assert [row["body"] for row in bodies] == [encode_payload(first).decode()]
    assert await product.statuses() == {"queued": TICK_LIMIT + 702}
    assert metric(product.metrics, "messages_queued_total") == TICK_LIMIT + 702


async def insert_due(product: Product, count: int, rest_of_day: timedelta) -> None:
    """Store messages of as many new users that are due now, and whose local birthday ends so much later."""
    now = product.clock.now()
    await product.pool.execute(
        """
        WITH born AS (
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from,
                               created_at, updated_at)
            SELECT uuid_v7($1), 'Ada', 'Lovelace', gen_random_uuid() || '@example.com', '1990-03-01', 'UTC', $1, $1, $1
            FROM generate_series(1, $2::integer)
            RETURNING id
        )
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from,
                                  created_at, updated_at)
        SELECT uuid_v7($1), id, 2027, '2027-03-01', $1, $1 + $3::interval, $1, $1, $1 FROM born
        """,
        now,
        count,
        rest_of_day,
    )
