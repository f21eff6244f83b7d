"""The janitor on a real database and broker."""

from dataclasses import replace
from datetime import date, timedelta

import asyncpg
import pytest

from benchmarks.population import populate
from birthday.broker.postgres import PostgresBroker
from birthday.channels import Temporary
from birthday.core.message import ErrorType
from birthday.store.idempotency import Answer, KeyedRequest, store_answers
from birthday.store.upkeep import remove_old
from birthday.store.users import lock_profile, replace_profile
from birthday.telemetry.metrics import Metrics
from tests.support.channel import HeldChannel, RecordingChannel
from tests.support.clock import ManualClock
from tests.support.outcomes import finish, store_queued
from tests.support.product import PLANNING, Product, eventually, metric, parse
from tests.support.users import TESTER


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 09:00 UTC on 1 March 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())


async def test_a_message_that_the_queue_lost_is_published_again_and_delivered_once(product: Product) -> None:
    """An operator purged the queue: after the grace period the janitor makes up for it."""
    await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    await product.pool.execute("DELETE FROM queue_messages")
    product.clock.advance(timedelta(seconds=59))
    await product.janitor.recover_once(product.clock.now())
    assert (await product.broker.stats()).ready == 0
    product.clock.advance(timedelta(seconds=1))
    await product.janitor.recover_once(product.clock.now())
    assert metric(product.metrics, "messages_rescued_total") == 1
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
    assert len(channel.sent) == 1


async def test_a_backlog_is_published_twice_at_most_while_it_waits(product: Product) -> None:
    """While the queue holds messages, the janitor trusts for a quarter of an hour that what is queued is among them.

    Then it publishes all of them again, since one is missing; and never more while the queue has enough for each.
    """
    for _ in range(2):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    await product.pool.execute("DELETE FROM queue_messages WHERE id = (SELECT min(id) FROM queue_messages)")
    for minutes, ready in ((14, 1), (1, 3), (15, 3), (600, 3)):
        product.clock.advance(timedelta(minutes=minutes))
        await product.janitor.recover_once(product.clock.now())
        assert (await product.broker.stats()).ready == ready


async def test_what_is_missing_among_copies_of_others_is_rescued_when_these_are_taken(product: Product) -> None:
    """The queue has two deliveries for two messages, but both are of the same one."""
    for _ in range(2):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    await product.pool.execute("UPDATE queue_messages SET body = (SELECT min(body) FROM queue_messages)")
    product.clock.advance(timedelta(hours=1))
    await product.janitor.recover_once(product.clock.now())
    assert (await product.broker.stats()).ready == 2
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1, "queued": 1})
        await eventually(lambda: is_empty(product), "the copy has been taken")
        await product.janitor.recover_once(product.clock.now())
        await product.wait_for_statuses({"delivered": 2})
    assert len(channel.sent) == 2


async def is_empty(product: Product) -> bool:
    """Say whether no delivery waits in the queue."""
    return (await product.broker.stats()).ready == 0


async def test_a_message_later_than_the_catch_up_window_expires_and_is_counted(product: Product) -> None:
    """Scheduled or queued, what nobody sent for two days is given up, visibly, and never sent."""
    await product.create(date(1990, 3, 1))
    await product.create(date(1990, 3, 2))
    await product.dispatcher.dispatch_once(product.clock.now())
    assert await product.statuses() == {"queued": 1, "scheduled": 1}
    product.clock.advance(timedelta(days=3))
    await product.janitor.recover_once(product.clock.now())
    assert await product.statuses() == {"expired": 2}
    assert metric(product.metrics, "messages_expired_total") == 2
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.create(date(1990, 3, 4))
        await product.dispatcher.dispatch_once(product.clock.now())
        await product.wait_for_statuses({"expired": 2, "delivered": 1})
    assert len(channel.sent) == 1


async def test_a_late_message_whose_user_has_moved_leaves_the_year_to_the_new_date(product: Product) -> None:
    """The user moved while it was being sent, the service failed, and then no worker came for two days."""
    user_id = await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    channel = HeldChannel(product.clock)
    channel.answer = lambda _: Temporary(ErrorType.EXTERNAL_API_ERROR, "busy", outage=False)
    async with product.working(channel):
        await channel.wait_for(1)
        product.clock.advance(timedelta(seconds=1))
        async with product.pool.acquire() as connection, connection.transaction():
            old = await lock_profile(connection, user_id)
            new = replace(old, date_of_birth=date(1990, 3, 5))
            await replace_profile(connection, user_id, old, new, product.clock.now(), PLANNING, TESTER)
        channel.release()
        await product.wait_for_statuses({"retrying": 1})
    product.clock.advance(timedelta(days=3))
    assert await product.planner.plan_once(product.clock.now()) == 0
    await product.janitor.recover_once(product.clock.now())
    assert await product.statuses() == {"cancelled": 1}
    assert metric(product.metrics, "messages_cancelled_total") == 1
    assert metric(product.metrics, "messages_expired_total") == 0
    assert await product.planner.plan_once(product.clock.now()) == 1


async def test_retention_removes_what_is_finished_and_old_and_nothing_else(product: Product) -> None:
    """Ninety days later the delivered message and the deleted user are gone; what is pending stays."""
    await product.create(date(1990, 3, 1))
    await product.create(date(1990, 3, 2))
    await product.pool.execute("UPDATE message_logs SET status = 'delivered' WHERE occasion_on = '2027-03-01'")
    await product.pool.execute(
        "UPDATE users SET deleted_at = $1 WHERE date_of_birth = '1990-03-01'", product.clock.now()
    )
    product.clock.advance(timedelta(days=89))
    assert await product.janitor.retire_once(product.clock.now()) == 0
    product.clock.advance(timedelta(days=2))
    assert await product.janitor.retire_once(product.clock.now()) == 1
    assert await product.statuses() == {"scheduled": 1}
    assert await product.pool.fetchval("SELECT count(*) FROM users") == 1
    assert await product.pool.fetchval("SELECT count(*) FROM outcomes") == 0


async def test_retention_keeps_the_place_in_the_feed_of_what_it_keeps(product: Product) -> None:
    """Two outcomes stand in one row of the feed, which stays until both messages are gone."""
    channel = RecordingChannel(product.clock)
    for _ in range(2):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 2})
    await product.pool.execute(
        "WITH gone AS (DELETE FROM outcomes RETURNING *) "
        "INSERT INTO outcomes (position, stored_at, ids) "
        "SELECT max(position), max(stored_at), (SELECT array_agg(id ORDER BY id) FROM message_logs) FROM gone"
    )
    product.clock.advance(timedelta(days=91))
    keep = "UPDATE message_logs SET updated_at = $1 WHERE id = (SELECT id FROM message_logs LIMIT 1)"
    await product.pool.execute(keep, product.clock.now())
    assert await product.janitor.retire_once(product.clock.now()) == 1
    assert await product.pool.fetchval("SELECT count(*) FROM outcomes") == 1
    product.clock.advance(timedelta(days=91))
    assert await product.janitor.retire_once(product.clock.now()) == 1
    assert await product.pool.fetchval("SELECT count(*) FROM outcomes") == 0


async def test_retention_does_not_read_what_it_keeps(database_url: str) -> None:
    """Also when every part of the table has held an old row that was removed since, as after months of retention."""
    at = parse("2027-03-01T09:00:00Z")
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        await pool.execute(
            """
            INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from,
                                      status, created_at, updated_at)
            SELECT uuid_v7(at), gen_random_uuid(), 2027, at::date, at, at, at, 'delivered', at, at
            FROM generate_series(1, 10000) AS number,
                 LATERAL (SELECT $1::timestamptz - interval '1 year' * (number % 100 = 0)::integer AS at) made
            """,
            at,
        )
        await pool.execute("VACUUM message_logs")
        assert await remove_old(pool, at, 1000) == 100
        await pool.execute("VACUUM message_logs")
        before = await count_pages(pool)
        assert await remove_old(pool, at, 1000) == 0
        assert await count_pages(pool) - before < 10


async def test_retention_touches_no_index_of_the_users(database_url: str) -> None:
    """The year that a removed message stood for fits on the page of its user, also if users were imported in one go."""
    at = parse("2027-03-01T09:00:00Z")
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            await populate(connection, 500, at - timedelta(days=400))
        await pool.execute(
            """
            INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from,
                                      status, created_at, updated_at)
            SELECT uuid_v7(at), id, 2026, at::date, at, at, at, 'delivered', at, at
            FROM (SELECT id, row_number() OVER (ORDER BY id) AS number, $1::timestamptz AS at FROM users) one
            WHERE number % 20 = 0
            """,
            at - timedelta(days=91),
        )
        assert await remove_old(pool, at, 1000) == 25
        await pool.execute("SELECT pg_stat_force_next_flush()")
        [updates] = await pool.fetch("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'users'")
        assert tuple(updates) == (25, 25)


async def count_pages(pool: asyncpg.Pool) -> int:
    """Return how many pages of the messages the pool's only connection has looked at so far."""
    await pool.execute("SELECT pg_stat_force_next_flush()")
    pages: int = await pool.fetchval(
        "SELECT heap_blks_read + heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'message_logs'"
    )
    return pages


async def test_a_new_outcome_of_an_old_message_is_kept_as_long_as_any(product: Product) -> None:
    """Planned long ago and requeued, it has ended just now: pollers of the feed have RETENTION_DAYS to read that."""
    [message_id] = await store_queued(product.pool, 1)
    product.clock.advance(timedelta(days=100))
    await finish(product.pool, [message_id], at=product.clock.now())
    for days, kept in ((0, 1), (89, 1), (2, 0)):
        product.clock.advance(timedelta(days=days))
        await product.janitor.retire_once(product.clock.now())
        assert await product.pool.fetchval("SELECT count(*) FROM message_logs") == kept


async def test_answers_to_repeated_requests_are_removed_after_a_day(product: Product) -> None:
    """After 24 hours the stored answer is gone; one that is a moment younger stays."""
    asked = [KeyedRequest(bytes([second]), b"", product.clock.now() + timedelta(seconds=second)) for second in range(2)]
    async with product.pool.acquire() as connection:
        await store_answers(connection, [(request, Answer(201, {}, b"Ada")) for request in asked])
    product.clock.advance(timedelta(hours=24))
    await product.janitor.recover_once(product.clock.now())
    assert [row["id"] for row in await product.pool.fetch("SELECT id FROM idempotency_keys")] == [asked[1].id]
