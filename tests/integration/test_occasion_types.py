"""Yearly dates besides the birthday: whatever holds for birthdays holds for them."""

import asyncio
from dataclasses import replace
from datetime import date, timedelta

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.core.occasion import Rules
from birthday.operations.audit import Item
from birthday.store.changes import Actor
from birthday.store.failed import FailedFilter, find_failed
from birthday.store.pauses import EVERY_OTHER, set_paused
from birthday.store.users import Planning
from birthday.store.watermarks import SWEPT, request_sweep
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.dates import give_date, plan_type, publish_type
from tests.support.product import Product, eventually, is_waiting_for_a_lock, metric, parse

JOINED = "work-anniversary"


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 12:00 UTC on 27 February 2027, that plans two days ahead."""
    clock = ManualClock(parse("2027-02-27T12:00:00Z"))
    return Product(pool, PostgresBroker(pool), clock, Metrics(), Planning(Rules(), timedelta(hours=48)))


async def planned(pool: asyncpg.Pool) -> list[tuple[str, str, int]]:
    """Return type, instant and year of each message that is scheduled, in order of time."""
    rows = await pool.fetch(
        """
        SELECT message_type, scheduled_at, occasion_year FROM message_logs WHERE status = 'scheduled'
        ORDER BY scheduled_at, message_type
        """
    )
    return [(row["message_type"], f"{row['scheduled_at']:%m-%d %H:%M}", row["occasion_year"]) for row in rows]


async def test_each_date_of_a_user_gets_its_own_message(product: Product) -> None:
    """Two occasions on one day are two messages, each at nine in the user's zone."""
    await plan_type(product.pool, JOINED, product.clock.now())
    user_id = await product.create(date(1990, 2, 28), "Europe/Berlin")
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    await product.planner.plan_once(product.clock.now())
    assert await planned(product.pool) == [("birthday", "02-28 08:00", 2027), (JOINED, "02-28 08:00", 2027)]


async def test_a_type_that_nobody_has_published_is_not_planned(product: Product) -> None:
    """A date alone sends nothing: there would be nothing to say."""
    user_id = await product.create(date(1990, 6, 1))
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    assert await product.planner.plan_once(product.clock.now()) == 0


async def test_the_day_of_joining_is_no_anniversary(product: Product) -> None:
    """The first occurrence is one year after the date, also for a date that is still to come this year."""
    await plan_type(product.pool, JOINED, product.clock.now())
    for joined in (date(2027, 2, 28), date(2026, 3, 1), date(2027, 3, 1)):
        user_id = await product.create(date(1990, 6, 1))
        await give_date(product.pool, user_id, JOINED, joined)
    await product.planner.plan_once(product.clock.now())
    assert await planned(product.pool) == [(JOINED, "03-01 09:00", 2027)]


async def test_an_anniversary_of_29_february_follows_the_rule_for_leap_days(product: Product) -> None:
    """In 2027 it is greeted on the 28th, as a birthday would be."""
    await plan_type(product.pool, JOINED, product.clock.now())
    user_id = await product.create(date(1992, 2, 29))
    await give_date(product.pool, user_id, JOINED, date(2020, 2, 29))
    await product.planner.plan_once(product.clock.now())
    assert await planned(product.pool) == [("birthday", "02-28 09:00", 2027), (JOINED, "02-28 09:00", 2027)]


async def test_the_date_of_a_deleted_user_is_not_planned(product: Product) -> None:
    """The copy of ``deleted_at`` beside the date counts."""
    await plan_type(product.pool, JOINED, product.clock.now())
    user_id = await product.create(date(1990, 6, 1))
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    await product.pool.execute("UPDATE anniversaries SET deleted_at = $1", product.clock.now())
    assert await product.planner.plan_once(product.clock.now()) == 0


async def test_planners_at_the_same_time_plan_each_type_once(product: Product) -> None:
    """Four planners on one database agree on one message for each user, type and year."""
    await plan_type(product.pool, JOINED, product.clock.now())
    await product.planner.plan_once(product.clock.now())
    for day in range(5, 21):
        user_id = await product.create(date(1990, 3, day))
        await give_date(product.pool, user_id, JOINED, date(2019, 3, day))
    later = parse("2027-03-21T12:00:00Z")
    counts = await asyncio.gather(*(product.planner.plan_once(later) for _ in range(4)))
    assert sum(counts) == len(await planned(product.pool)) == 32


async def test_a_date_that_moves_at_the_last_moment_is_not_greeted_on_its_old_day(product: Product) -> None:
    """The claim compares a message with its own date: the birthday of the same user goes out."""
    await plan_type(product.pool, JOINED, product.clock.now())
    user_id = await product.create(date(1990, 2, 28))
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    await product.planner.plan_once(product.clock.now())
    product.clock.advance(timedelta(hours=22))
    await product.pool.execute("UPDATE anniversaries SET schedule_from = $1", product.clock.now())
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        assert (await product.dispatcher.dispatch_once(product.clock.now())).published == 2
        await product.wait_for_statuses({"delivered": 1, "cancelled": 1})
    delivered = await product.pool.fetchval("SELECT message_type FROM message_logs WHERE status = 'delivered'")
    assert delivered == "birthday"


async def test_a_year_stays_taken_after_retention_has_removed_the_message(product: Product) -> None:
    """Each type remembers its own years; a date that is taken back and given again does not forget them."""
    await plan_type(product.pool, JOINED, product.clock.now())
    user_id = await product.create(date(1990, 6, 1))
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    await product.planner.plan_once(product.clock.now())
    await product.pool.execute("UPDATE message_logs SET status = 'delivered', delivered_at = scheduled_at")
    assert await product.janitor.retire_once(product.clock.now() + timedelta(days=200)) == 1
    await product.pool.execute("UPDATE anniversaries SET date = NULL")
    await product.pool.execute("UPDATE anniversaries SET date = '2019-03-01', schedule_from = $1", product.clock.now())
    assert await product.planner.plan_once(product.clock.now() + timedelta(hours=1)) == 0
    assert await product.pool.fetchval("SELECT greeted_year FROM users") == 0


async def test_a_type_that_is_published_is_planned_at_the_next_tick(product: Product) -> None:
    """What the watermark has passed is found at once, but not what was over when the planner saw the type.

    Whoever has the day today is greeted now, as a user is who is created on the day.
    """
    for zone in ("Asia/Tokyo", "America/New_York", "Pacific/Honolulu"):
        user_id = await product.create(date(1990, 6, 1), zone)
        await give_date(product.pool, user_id, JOINED, date(2019, 2, 27))
    product.clock.advance(timedelta(hours=6))
    assert await product.planner.plan_once(product.clock.now()) == 0
    await publish_type(product.pool, JOINED, product.clock.now())
    assert await product.planner.plan_once(product.clock.now()) == 2
    assert await planned(product.pool) == [(JOINED, "02-27 18:00", 2027), (JOINED, "02-27 19:00", 2027)]


async def test_a_day_counts_however_short_the_catch_up_window_is(product: Product) -> None:
    """A new type is looked for on the whole of the local date, as a new user is."""
    hasty = replace(product, catch_up=timedelta(hours=1))
    user_id = await hasty.create(date(1990, 6, 1))
    await give_date(hasty.pool, user_id, JOINED, date(2019, 2, 27))
    await hasty.planner.plan_once(hasty.clock.now())
    hasty.clock.advance(timedelta(hours=11))
    await publish_type(hasty.pool, JOINED, hasty.clock.now())
    await hasty.planner.plan_once(hasty.clock.now())
    assert await planned(hasty.pool) == [(JOINED, "02-27 23:00", 2027)]


async def test_a_new_type_is_looked_for_by_whichever_scheduler_sweeps(product: Product) -> None:
    """Another one has noted it and asked for the sweep, and has died, or was slower."""
    hasty = replace(product, catch_up=timedelta(hours=1))
    user_id = await hasty.create(date(1990, 6, 1))
    await give_date(hasty.pool, user_id, JOINED, date(2019, 2, 27))
    await hasty.planner.plan_once(hasty.clock.now())
    hasty.clock.advance(timedelta(hours=11))
    await plan_type(hasty.pool, JOINED, hasty.clock.now())
    await request_sweep(hasty.pool)
    await hasty.planner.plan_once(hasty.clock.now())
    assert await planned(hasty.pool) == [(JOINED, "02-27 23:00", 2027)]


async def test_a_new_type_is_noted_together_with_its_sweep(product: Product) -> None:
    """A scheduler that dies in between leaves neither: the next one finds the type new."""
    await product.planner.plan_once(product.clock.now())
    await publish_type(product.pool, JOINED, product.clock.now())
    async with product.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM watermarks WHERE name = $1 FOR UPDATE", SWEPT)
        planning = asyncio.create_task(product.planner.plan_once(product.clock.now()))
        await eventually(lambda: is_waiting_for_a_lock(product.pool), "the planner asks for a sweep")
        noted = await product.pool.fetchval("SELECT count(*) FROM planned_types")
    await planning
    assert noted == 0


async def test_the_tick_after_a_new_type_looks_once_more(product: Product) -> None:
    """A change of a user that was under way in the first tick did not know the type."""
    await product.planner.plan_once(product.clock.now())
    await publish_type(product.pool, JOINED, product.clock.now())
    await product.planner.plan_once(product.clock.now())
    user_id = await product.create(date(1990, 6, 1))
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    assert await product.planner.plan_once(product.clock.now() + timedelta(minutes=5)) == 1


async def test_a_type_that_is_withdrawn_is_not_planned_any_more(product: Product) -> None:
    """Without a template there is nothing to say; if it is published again, days that were over stay so."""
    await publish_type(product.pool, JOINED, product.clock.now())
    await product.planner.plan_once(product.clock.now())
    await product.pool.execute("UPDATE active_templates SET version = 0")
    user_id = await product.create(date(1990, 6, 1))
    await give_date(product.pool, user_id, JOINED, date(2019, 3, 5))
    product.clock.advance(timedelta(days=7))
    assert await product.planner.plan_once(product.clock.now()) == 0
    await product.pool.execute("UPDATE active_templates SET version = 1")
    assert await product.planner.plan_once(product.clock.now()) == 0


async def test_only_the_type_that_is_paused_stands_still(product: Product) -> None:
    """Its messages wait: the planned one is not published, and the one in the queue stays there. Birthdays go out."""
    await plan_type(product.pool, JOINED, product.clock.now())
    for _ in range(2):
        user_id = await product.create(date(1990, 2, 28))
        await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    await product.planner.plan_once(product.clock.now())
    product.clock.advance(timedelta(hours=22))
    early = await product.pool.fetchval("SELECT id FROM message_logs WHERE message_type = $1 LIMIT 1", JOINED)
    await product.pool.execute("UPDATE message_logs SET status = 'queued' WHERE id = $1", early)
    await product.broker.publish([early])
    async with product.pool.acquire() as connection:
        await set_paused(connection, [JOINED], paused=True, now=product.clock.now(), by=Actor("ada@host"))
    await product.pauses.refresh()
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        assert (await product.dispatcher.dispatch_once(product.clock.now())).published == 2
        await product.wait_for_statuses({"delivered": 2, "queued": 1, "scheduled": 1})
        product.clock.advance(timedelta(hours=1))
        await product.janitor.recover_once(product.clock.now())
        assert metric(product.metrics, "messages_rescued_total") == 0
    delivered = await product.pool.fetch("SELECT DISTINCT message_type FROM message_logs WHERE status = 'delivered'")
    assert [row["message_type"] for row in delivered] == ["birthday"]


async def test_a_pause_of_everything_holds_for_a_type_that_is_published_meanwhile(product: Product) -> None:
    """An operator who has stopped everything is not surprised by a new type; a type resumed alone goes on."""
    async with product.pool.acquire() as connection:
        now = product.clock.now()
        await set_paused(connection, ["birthday", EVERY_OTHER], paused=True, now=now, by=Actor("ada@host"))
        await plan_type(product.pool, JOINED, now)
        await product.pauses.refresh()
        assert (product.pauses.held, product.pauses.paused) == (True, ("birthday", JOINED))
        await set_paused(connection, [JOINED], paused=False, now=now + timedelta(seconds=1), by=Actor("ada@host"))
        await product.pauses.refresh()
        assert (product.pauses.held, product.pauses.paused) == (False, ("birthday",))


async def test_the_audit_knows_every_planned_type(product: Product) -> None:
    """A lost anniversary is missing, and says its type. Neither a type that nobody plans nor an old day is expected."""
    user_id = await product.create(date(1990, 2, 28))
    for message_type in (JOINED, "name-day"):
        await give_date(product.pool, user_id, message_type, date(2019, 2, 28))
    early = await product.create(date(1990, 6, 1))
    await give_date(product.pool, early, JOINED, date(2019, 2, 26))
    await plan_type(product.pool, JOINED, product.clock.now())
    await product.planner.plan_once(product.clock.now())
    product.clock.advance(timedelta(hours=22))
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.dispatcher.dispatch_once(product.clock.now())
        await product.wait_for_statuses({"delivered": 2})
    items: list[Item] = []
    from_at, now = parse("2027-02-25T00:00:00Z"), product.clock.now()
    assert (await product.auditor.audit(from_at, now, now)).counts == {"delivered": 2}
    await product.pool.execute("ALTER TABLE message_logs DISABLE TRIGGER remember_greeted_years")
    await product.pool.execute("DELETE FROM message_logs WHERE message_type = $1", JOINED)
    audit = await product.auditor.audit(from_at, now, now, items.append)
    assert audit.counts == {"delivered": 1, "missing": 1}
    assert {(item.finding, item.message_type) for item in items} == {("delivered", "birthday"), ("missing", JOINED)}


async def test_the_forecast_counts_every_planned_type(product: Product) -> None:
    """Two dates of one user on one day are two messages; a type that nobody plans is none."""
    await plan_type(product.pool, JOINED, product.clock.now())
    user_id = await product.create(date(1990, 4, 1))
    for message_type in (JOINED, "name-day"):
        await give_date(product.pool, user_id, message_type, date(2019, 4, 1))
    forecast = await product.forecaster.forecast(parse("2027-04-01T00:00:00Z"), parse("2027-04-02T00:00:00Z"))
    assert forecast.due == {parse("2027-04-01T09:00:00Z"): 2}


async def test_failed_messages_are_selected_by_type(product: Product) -> None:
    """An operator requeues what a bad template has failed, and nothing else."""
    await plan_type(product.pool, JOINED, product.clock.now())
    user_id = await product.create(date(1990, 2, 28))
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    await product.planner.plan_once(product.clock.now())
    await product.pool.execute("UPDATE message_logs SET status = 'failed'")
    wanted = await product.pool.fetchval("SELECT id FROM message_logs WHERE message_type = $1", JOINED)
    found = [ids async for ids in find_failed(product.pool, FailedFilter(message_type=JOINED))]
    assert found == [[wanted]]


async def test_nothing_is_sent_of_a_type_whose_template_was_withdrawn(product: Product) -> None:
    """A message that was planned before fails with the reason, and the birthday of the same user goes out."""
    await plan_type(product.pool, JOINED, product.clock.now())
    user_id = await product.create(date(1990, 2, 28))
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    await product.planner.plan_once(product.clock.now())
    await product.pool.execute("UPDATE active_templates SET version = 0")
    product.clock.advance(timedelta(hours=22))
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.dispatcher.dispatch_once(product.clock.now())
        await product.wait_for_statuses({"delivered": 1, "failed": 1})
    assert [sent.greeting.text for sent in channel.sent] == ["Hey, Ada Lovelace it's your birthday"]
    failed = await product.pool.fetchval("SELECT error_detail FROM message_logs WHERE status = 'failed'")
    assert failed == f"there is no template of the type {JOINED}"
