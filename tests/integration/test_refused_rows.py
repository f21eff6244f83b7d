"""A row that the database refuses (a constraint, a trigger, bad data) fails alone, wherever it is met."""

import asyncio
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.operations.dead_letters.requeue import requeue_many
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, metric, parse
from tests.support.users import TESTER

COUNT = 40
POISON = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.user_id = current_setting('test.poison')::uuid
           AND NEW.status = ANY(string_to_array(TG_ARGV[0], ' ')) THEN
            RAISE EXCEPTION 'refused' USING ERRCODE = TG_ARGV[1];
        END IF;
        RETURN NEW;
    END $$
"""
TRIGGER = "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON message_logs FOR EACH ROW EXECUTE FUNCTION refuse(%L, %L)"


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 09:00 UTC on 1 March 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())


async def invite(product: Product, count: int = COUNT) -> list[UUID]:
    """Create users whose birthday is now; their messages are scheduled."""
    return [await product.create(date(1990, 3, 1)) for _ in range(count)]


async def poison(product: Product, user: UUID, states: str, sqlstate: str = "23514") -> None:
    """Let the database refuse to move the messages of ``user`` to any of ``states``."""
    await execute(product, "ALTER DATABASE %I SET test.poison = %L", await name(product), str(user))
    await product.pool.expire_connections()
    await product.pool.execute(POISON)
    await execute(product, TRIGGER, states, sqlstate)


async def name(product: Product) -> str:
    """Return the name of the database."""
    database: str = await product.pool.fetchval("SELECT current_database()")
    return database


async def execute(product: Product, statement: str, *values: str) -> None:
    """Run a statement that takes no parameters."""
    await product.pool.execute(await product.pool.fetchval("SELECT format($1, VARIADIC $2::text[])", statement, values))


async def failure(product: Product, user: UUID) -> tuple[str, str, str, bool]:
    """Return status, type and text of the error, and whether it may have arrived, of a user's message."""
    row = await product.pool.fetchrow(
        "SELECT status, error_type, error_detail, may_have_arrived FROM message_logs WHERE user_id = $1", user
    )
    assert row is not None
    return tuple(row)


async def test_an_outcome_that_cannot_be_stored_is_a_failure_and_holds_nobody_up(product: Product) -> None:
    """All are sent once; one outcome is refused: it fails with the SQLSTATE, is dead-lettered, may have arrived."""
    users = await invite(product)
    await product.dispatcher.dispatch_once(product.clock.now())
    await poison(product, users[7], "delivered retrying")
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": COUNT - 1, "failed": 1})
        await eventually(lambda: has_dead(product, 1), "a dead letter")
    assert len(channel.sent) == COUNT
    status, error_type, detail, may_have_arrived = await failure(product, users[7])
    assert (status, error_type, may_have_arrived) == ("failed", "permanent_failure", True)
    assert "23514" in detail
    assert metric(product.metrics, "messages_failed_total", error_type="permanent_failure") == 1
    assert metric(product.metrics, "messages_delivered_total") == COUNT - 1


async def has_dead(product: Product, count: int) -> bool:
    """Say whether so many queue messages are dead-lettered and none is left otherwise."""
    stats = await product.broker.stats()
    return (stats.dead, stats.ready, stats.unacked) == (count, 0, 0)


@pytest.mark.parametrize("sqlstate", ["42703", "42501", "22003"])
async def test_a_message_that_cannot_be_claimed_fails_and_holds_nobody_up(product: Product, sqlstate: str) -> None:
    """A column, a privilege or a number that one row stumbles over: it is never sent, the others are."""
    users = await invite(product)
    await product.dispatcher.dispatch_once(product.clock.now())
    await poison(product, users[0], "sending", sqlstate)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": COUNT - 1, "failed": 1})
        await eventually(lambda: has_dead(product, 1), "a dead letter")
    assert len(channel.sent) == COUNT - 1
    status, error_type, detail, may_have_arrived = await failure(product, users[0])
    assert (status, error_type, may_have_arrived) == ("failed", "permanent_failure", False)
    assert sqlstate in detail
    assert metric(product.metrics, "messages_failed_total", error_type="permanent_failure") == 1
    assert metric(product.metrics, "messages_by_type_total", message_type="birthday", status="failed") == 1


async def test_a_message_that_cannot_even_fail_holds_nobody_up(product: Product) -> None:
    """Nothing of it can be stored: the others are delivered, it stays as it is, and the queue is empty."""
    users = await invite(product)
    await product.dispatcher.dispatch_once(product.clock.now())
    await poison(product, users[3], "delivered retrying failed")
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": COUNT - 1, "sending": 1})
        await eventually(lambda: has_dead(product, 0), "an empty queue")
    assert len(channel.sent) == COUNT


async def test_an_error_that_concerns_everybody_fails_nobody(product: Product) -> None:
    """A column is missing: outcomes wait until it is back, and all are delivered, each sent once."""
    await invite(product)
    await product.dispatcher.dispatch_once(product.clock.now())
    await product.pool.execute("ALTER TABLE message_logs RENAME COLUMN delivered_at TO somewhere_else")
    channel = RecordingChannel(product.clock)
    async with product.working(channel) as pipeline:
        await product.wait_for_statuses({"sending": COUNT})

        async def is_stuck() -> bool:
            return len(channel.sent) == COUNT and pipeline.stuck_seconds > 0.5

        await eventually(is_stuck, "the worker waits")
        assert await product.statuses() == {"sending": COUNT}
        await product.pool.execute("ALTER TABLE message_logs RENAME COLUMN somewhere_else TO delivered_at")

        async def is_delivered() -> bool:
            # The worker waits by the clock of the test.
            product.clock.advance(timedelta(seconds=1))
            return await product.statuses() == {"delivered": COUNT}

        await eventually(is_delivered, "all are delivered")
    assert len(channel.sent) == COUNT


async def test_a_message_that_cannot_be_dispatched_fails_and_holds_nobody_up(product: Product) -> None:
    """The others are queued by the same tick."""
    users = await invite(product)
    await poison(product, users[9], "queued")
    dispatched = await product.dispatcher.dispatch_once(product.clock.now())
    assert dispatched.published == COUNT - 1
    assert await product.statuses() == {"queued": COUNT - 1, "failed": 1}
    assert "23514" in (await failure(product, users[9]))[2]
    assert (await product.dispatcher.dispatch_once(product.clock.now())).published == 0


async def test_a_user_who_cannot_be_planned_holds_nobody_up(product: Product) -> None:
    """The others are planned, also those who are born on the same day in the same zone."""
    product.clock.advance(timedelta(days=-10))
    users = await invite(product)
    others = [await product.create(date(1990, 3, 1), "Europe/Berlin") for _ in range(3)]
    await poison(product, users[5], "scheduled")
    product.clock.advance(timedelta(days=9))
    assert await product.planner.plan_once(product.clock.now()) == COUNT - 1 + len(others)
    assert await product.statuses() == {"scheduled": COUNT - 1 + len(others)}
    assert metric(product.metrics, "scheduler_failures_total", task="plan") == 1


async def test_a_message_that_cannot_expire_fails_and_holds_nobody_up(product: Product) -> None:
    """The janitor expires the others and goes on to rescue what is lost."""
    users = await invite(product)
    await poison(product, users[2], "expired")
    product.clock.advance(timedelta(days=3))
    await product.janitor.recover_once(product.clock.now())
    assert await product.statuses() == {"expired": COUNT - 1, "failed": 1}


async def test_a_message_that_cannot_be_rescued_fails_and_holds_nobody_up(product: Product) -> None:
    """What the queue has lost is queued again, but for that one."""
    users = await invite(product)
    await product.dispatcher.dispatch_once(product.clock.now())
    await product.pool.execute("TRUNCATE queue_messages")
    await poison(product, users[2], "queued")
    product.clock.advance(timedelta(hours=1))
    await product.janitor.recover_once(product.clock.now())
    assert await product.statuses() == {"queued": COUNT - 1, "failed": 1}
    assert metric(product.metrics, "messages_rescued_total") == COUNT - 1


async def test_a_message_that_cannot_be_requeued_stays_failed_and_holds_nobody_up(product: Product) -> None:
    """An operator requeues all that failed: the others are queued."""
    users = await invite(product)
    await product.pool.execute("UPDATE message_logs SET status = 'failed', error_type = 'timeout'")
    await poison(product, users[4], "queued")
    ids = [row["id"] for row in await product.pool.fetch("SELECT id FROM message_logs")]
    requeued: list[UUID] = []
    async with asyncio.timeout(60):
        await requeue_many(product.pool, product.broker, ids, product.clock, TESTER, requeued.extend)
    assert len(requeued) == COUNT - 1
    assert await product.statuses() == {"queued": COUNT - 1, "failed": 1}
