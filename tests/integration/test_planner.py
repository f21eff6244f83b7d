"""The planner on a real database."""

import asyncio
from dataclasses import replace
from datetime import date, time, timedelta
from uuid import uuid4

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.core.occasion import LeapDay, Rules
from birthday.scheduler.planner import Planner
from birthday.store.users import Planning
from birthday.store.watermarks import request_sweep
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, metric, parse


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 12:00 UTC on 1 March 2027, that plans an hour ahead and catches up for two."""
    return Product(
        pool,
        PostgresBroker(pool),
        ManualClock(parse("2027-03-01T12:00:00Z")),
        Metrics(),
        Planning(Rules(), timedelta(hours=1)),
        catch_up=timedelta(hours=2),
    )


async def scheduled(pool: asyncpg.Pool) -> list[str]:
    """Return the due instants of all messages that are scheduled, in order."""
    rows = await pool.fetch("SELECT scheduled_at FROM message_logs WHERE status = 'scheduled' ORDER BY scheduled_at")
    return [f"{row['scheduled_at']:%Y-%m-%dT%H:%M:%SZ}" for row in rows]


async def test_a_message_is_planned_when_its_instant_comes_within_the_horizon(product: Product) -> None:
    """Nothing before; one message as soon as the horizon reaches 09:00 local time; and never a second one."""
    await product.create(date(1990, 3, 2), "Europe/Berlin")
    product.clock.advance(parse("2027-03-02T06:59:00Z") - product.clock.now())
    assert await product.planner.plan_once(product.clock.now()) == 0
    product.clock.advance(timedelta(minutes=1))
    assert await product.planner.plan_once(product.clock.now()) == 1
    assert await product.planner.plan_once(product.clock.now()) == 0
    product.clock.advance(timedelta(minutes=5))
    assert await product.planner.plan_once(product.clock.now()) == 0
    assert await scheduled(product.pool) == ["2027-03-02T08:00:00Z"]
    assert metric(product.metrics, "messages_scheduled_total") == 1


async def test_one_tick_plans_each_zone_at_its_own_instant(product: Product) -> None:
    """Neighbours on the same date are hours apart; what lies beyond the horizon waits."""
    for zone in ("Asia/Kathmandu", "Europe/London", "America/New_York", "UTC+05:30"):
        await product.create(date(1990, 3, 2), zone)
    product.clock.advance(parse("2027-03-02T03:00:00Z") - product.clock.now())
    await product.planner.plan_once(product.clock.now())
    assert await scheduled(product.pool) == ["2027-03-02T03:15:00Z", "2027-03-02T03:30:00Z"]
    product.clock.advance(timedelta(hours=5))
    await product.planner.plan_once(product.clock.now())
    assert (await scheduled(product.pool))[2:] == ["2027-03-02T09:00:00Z"]


async def test_after_thirty_hours_of_downtime_everything_missed_is_planned(product: Product) -> None:
    """The watermark brings back the instants of the whole outage, those beyond the catch-up window too."""
    await product.planner.plan_once(product.clock.now())
    early = await product.create(date(1990, 3, 1), "America/Los_Angeles")
    late = await product.create(date(1990, 3, 2), "America/Los_Angeles")
    assert await scheduled(product.pool) == []
    product.clock.advance(timedelta(hours=30))
    assert await product.planner.plan_once(product.clock.now()) == 2
    rows = await product.pool.fetch("SELECT user_id, scheduled_at FROM message_logs ORDER BY scheduled_at")
    assert [row["user_id"] for row in rows] == [early, late]
    await product.janitor.recover_once(product.clock.now())
    assert await product.statuses() == {"expired": 1, "scheduled": 1}
    assert metric(product.metrics, "messages_expired_total") == 1


async def test_planners_at_the_same_time_plan_each_message_once(product: Product) -> None:
    """Six planners on one database, weeks behind: the sum of what they say is what is there."""
    await product.planner.plan_once(product.clock.now())
    for day in range(2, 29):
        await product.create(date(1990, 3, day))
    later = parse("2027-03-28T20:00:00Z")
    counts = await asyncio.gather(*(product.planner.plan_once(later) for _ in range(6)))
    assert sum(counts) == len(await scheduled(product.pool)) == 27


async def test_a_birthday_that_was_over_when_the_user_came_is_not_planned(product: Product) -> None:
    """The hourly sweep looks back, and must not congratulate for a day that the user did not spend with us."""
    product.clock.advance(parse("2027-03-03T00:30:00Z") - product.clock.now())
    await product.create(date(1990, 3, 2))
    assert await product.planner.plan_once(product.clock.now()) == 0


async def test_the_day_of_birth_itself_is_no_birthday(product: Product) -> None:
    """Somebody born today is greeted a year from now."""
    product.clock.advance(parse("2027-03-02T08:30:00Z") - product.clock.now())
    await product.create(date(2027, 3, 2))
    assert await product.planner.plan_once(product.clock.now()) == 0


async def test_users_written_by_other_means_are_found_within_the_hour(product: Product) -> None:
    """A row inserted with psql, due soon and behind the watermark, is planned by the next sweep."""
    await product.planner.plan_once(product.clock.now())
    product.clock.advance(parse("2027-03-02T08:30:00Z") - product.clock.now())
    await product.planner.plan_once(product.clock.now())
    await product.pool.execute(
        """
        INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                           schedule_from, created_at, updated_at)
        VALUES ($1, 'Grace', 'Hopper', 'grace@example.com', '1990-03-02', 'UTC', $2, $2, $2)
        """,
        uuid4(),
        product.clock.now() - timedelta(days=30),
    )
    product.clock.advance(timedelta(hours=1))
    assert await product.planner.plan_once(product.clock.now()) == 1
    assert await scheduled(product.pool) == ["2027-03-02T09:00:00Z"]


async def test_a_first_start_plans_nothing_that_is_too_late_to_be_sent(product: Product) -> None:
    """Users who were imported long before: a message for each of the last two days would only expire."""
    for zone in ("UTC", "UTC-02:00"):
        await product.create(date(1990, 3, 1), zone)
    await product.pool.execute("DELETE FROM message_logs")
    await product.pool.execute("UPDATE users SET schedule_from = $1", product.clock.now() - timedelta(days=30))
    assert await product.planner.plan_once(product.clock.now()) == 1
    assert await scheduled(product.pool) == ["2027-03-01T11:00:00Z"]


async def test_a_sweep_leaves_the_watermark_where_it_is(product: Product) -> None:
    """Another scheduler that reads it meanwhile would plan what is too late from there on."""
    wide = replace(product, catch_up=timedelta(hours=48))
    await wide.planner.plan_once(wide.clock.now())
    await wide.create(date(1990, 3, 1))
    async with wide.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        # The sweep has to wait for this on the second of its three days.
        await connection.execute("UPDATE message_logs SET status = 'cancelled'")
        await request_sweep(wide.pool)
        sweeping = asyncio.create_task(wide.planner.plan_once(wide.clock.now()))
        await eventually(lambda: are_waiting(wide.pool, 1), "the planner waits for the message")
        reached = await wide.pool.fetchval("SELECT reached_at FROM watermarks WHERE name = 'planned'")
        await transaction.rollback()
    await sweeping
    assert reached == wide.clock.now() + timedelta(hours=1)


async def test_a_user_in_a_zone_that_does_not_exist_keeps_nobody_else_from_being_planned(product: Product) -> None:
    """Such a row came by other means than ours: it is counted and logged, and the neighbour is planned."""
    await product.create(date(1990, 3, 2), "Europe/Berlin")
    await product.create(date(1990, 3, 2), "UTC")
    await product.pool.execute("UPDATE users SET timezone = 'Mars/Base' WHERE timezone = 'Europe/Berlin'")
    product.clock.advance(parse("2027-03-02T08:30:00Z") - product.clock.now())
    assert await product.planner.plan_once(product.clock.now()) == 1
    assert metric(product.metrics, "planner_unknown_zones_total") > 0


async def test_a_clock_that_once_ran_ahead_does_not_stop_planning(product: Product) -> None:
    """One tick thirty days ahead, then the right time again: who comes afterwards is planned all the same."""
    await product.planner.plan_once(product.clock.now() + timedelta(days=30))
    await product.create(date(1990, 3, 15))
    product.clock.advance(parse("2027-03-15T08:30:00Z") - product.clock.now())
    assert await product.planner.plan_once(product.clock.now()) == 1


async def test_retention_at_the_moment_of_a_move_leaves_one_message_a_year(product: Product) -> None:
    """Retention removes the row that took the year while a planner is under way: the year stays taken."""
    product.clock.advance(parse("2027-03-02T08:30:00Z") - product.clock.now())
    user_id = await product.create(date(1990, 3, 2))
    await product.pool.execute("UPDATE message_logs SET status = 'delivered'")
    product.clock.advance(timedelta(days=100))
    moved = product.clock.now() + timedelta(minutes=30)
    await product.pool.execute(
        "UPDATE users SET date_of_birth = $2, schedule_from = $3 WHERE id = $1",
        user_id,
        moved.date().replace(year=1990),
        product.clock.now(),
    )
    await asyncio.gather(
        *(product.planner.plan_once(product.clock.now() + timedelta(hours=hour)) for hour in range(0, 24, 4)),
        product.janitor.retire_once(product.clock.now()),
    )
    assert await scheduled(product.pool) == []


async def test_a_sweep_that_is_asked_for_while_one_is_under_way_is_made(product: Product) -> None:
    """The one under way may have passed the day that it is about."""
    wide = replace(product, planning=Planning(Rules(), timedelta(hours=48)), catch_up=timedelta(hours=48))
    await wide.create(date(1990, 3, 2))
    now = wide.clock.now()
    async with wide.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        # The planner has to wait for this on the third of its four days.
        await connection.execute("UPDATE message_logs SET status = 'cancelled'")
        sweeping = asyncio.create_task(wide.planner.plan_once(now))
        await eventually(lambda: are_waiting(wide.pool, 1), "the planner waits for the message")
        # Whoever asks is a worker that has other things to do: it does not wait for the planner.
        await request_sweep(wide.pool)
        await transaction.rollback()
    assert await sweeping == 0
    for planned in (1, 0):
        await wide.pool.execute("DELETE FROM message_logs")
        assert await wide.planner.plan_once(now) == planned


def with_rules(product: Product, rules: Rules) -> Product:
    """Return the same installation after a restart with other rules."""
    return replace(product, planning=Planning(rules, timedelta(hours=48)), catch_up=timedelta(hours=48))


@pytest.mark.parametrize(
    ("send_at", "expected"),
    [("10:30", "2027-03-02T10:30:00Z"), ("00:00", "2027-03-02T00:00:00Z"), ("09:00", "2027-03-02T09:00:00Z")],
)
async def test_another_send_at_moves_what_is_planned(product: Product, send_at: str, expected: str) -> None:
    """A message that is not due yet follows the rules that the scheduler is started with, and stays the same one."""
    await with_rules(product, Rules()).create(date(1990, 3, 2))
    before = await product.pool.fetchval("SELECT id FROM message_logs")

    restarted = with_rules(product, Rules(send_at=time.fromisoformat(send_at)))
    assert await restarted.planner.plan_once(product.clock.now()) == 0

    assert await scheduled(product.pool) == [expected]
    assert await product.pool.fetchval("SELECT id FROM message_logs") == before


async def test_what_moves_beyond_the_horizon_moves_all_the_same(product: Product) -> None:
    """The new instant of the last messages that are planned lies further ahead than anything is planned."""
    early = with_rules(product, Rules())
    product.clock.advance(timedelta(hours=-1))
    await early.create(date(1990, 3, 3))
    assert await scheduled(product.pool) == ["2027-03-03T09:00:00Z"]

    await with_rules(product, Rules(send_at=time(17))).planner.plan_once(product.clock.now())

    assert await scheduled(product.pool) == ["2027-03-03T17:00:00Z"]


async def test_an_instant_that_has_passed_meanwhile_means_now(product: Product) -> None:
    """The new SEND_AT was hours ago, and it is still that date there: the message is due at once, and not late."""
    await with_rules(product, Rules(send_at=time(20))).create(date(1990, 3, 1))

    await with_rules(product, Rules()).planner.plan_once(product.clock.now())

    assert await scheduled(product.pool) == ["2027-03-01T12:00:00Z"]


async def test_what_is_due_or_under_way_does_not_move(product: Product) -> None:
    """Another SEND_AT is for what is to come: a message that is queued, or due now, goes out as it is."""
    early = with_rules(product, Rules())
    await early.create(date(1990, 3, 2))
    await product.pool.execute("UPDATE message_logs SET status = 'queued'")
    await early.create(date(1990, 3, 1))
    late = with_rules(product, Rules(send_at=time(20)))

    await late.planner.plan_once(product.clock.now())

    rows = await product.pool.fetch("SELECT scheduled_at, status FROM message_logs ORDER BY scheduled_at")
    assert [(row["scheduled_at"], row["status"]) for row in rows] == [
        (parse("2027-03-01T12:00:00Z"), "scheduled"),
        (parse("2027-03-02T09:00:00Z"), "queued"),
    ]


async def test_what_a_process_plans_by_the_rules_of_before_moves_in_the_sweeps_of_three_hours(product: Product) -> None:
    """In a rolling restart an API may be the last to learn a new SEND_AT. Later, no sweep looks at everything again."""
    early, late = with_rules(product, Rules()), with_rules(product, Rules(send_at=time(15)))
    for restarted in (early, late):
        product.clock.advance(timedelta(minutes=1))
        await restarted.planner.plan_once(product.clock.now())
    await early.create(date(1990, 3, 2))
    product.clock.advance(timedelta(hours=1))
    await late.planner.plan_once(product.clock.now())
    assert await scheduled(product.pool) == ["2027-03-02T15:00:00Z"]

    await early.create(date(1990, 3, 3))
    product.clock.advance(timedelta(hours=2))
    await late.planner.plan_once(product.clock.now())
    assert await scheduled(product.pool) == ["2027-03-02T15:00:00Z", "2027-03-03T09:00:00Z"]


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        (LeapDay.MAR1, LeapDay.FEB28, "2027-02-28T09:00:00Z"),
        (LeapDay.FEB28, LeapDay.MAR1, "2027-03-01T09:00:00Z"),
    ],
)
async def test_another_leap_day_moves_what_is_planned(
    product: Product, was: LeapDay, now: LeapDay, expected: str
) -> None:
    """Somebody born on 29 February is greeted once, on the date of the rules that are in force."""
    product.clock.advance(parse("2027-02-27T12:00:00Z") - product.clock.now())
    await with_rules(product, Rules(leap_day=was)).create(date(1992, 2, 29))

    await with_rules(product, Rules(leap_day=now)).planner.plan_once(product.clock.now())

    assert await scheduled(product.pool) == [expected]
    on: date = await product.pool.fetchval("SELECT occasion_on FROM message_logs")
    assert on == parse(expected).date()


OLD, NEW = "2025b", "2026f"
"""Releases of the time-zone data. What the old ones say of a zone is played by moving what was planned."""


def with_data(product: Product, release: str) -> Planner:
    """Return a planner with time-zone data of a release."""
    return replace(product.planner, zone_data=release)


async def plan_an_hour_late(product: Product, release: str) -> None:
    """Let a planner with data of ``release`` plan everybody an hour later than the data of today say."""
    await with_data(product, release).plan_once(product.clock.now())
    await product.pool.execute(
        "UPDATE message_logs SET scheduled_at = scheduled_at + interval '1 hour', ends_at = ends_at + interval '1 hour'"
    )


async def test_newer_time_zone_data_move_what_is_planned(product: Product) -> None:
    """At the first tick of the new release, under the same id; and not again, which would cost a look at everything."""
    product = with_rules(product, Rules())
    await product.create(date(1990, 3, 2), "Asia/Tokyo")
    before = await product.pool.fetchval("SELECT id FROM message_logs")
    await plan_an_hour_late(product, OLD)
    assert await scheduled(product.pool) == ["2027-03-02T01:00:00Z"]

    assert await with_data(product, NEW).plan_once(product.clock.now()) == 0

    assert await scheduled(product.pool) == ["2027-03-02T00:00:00Z"]
    assert await product.pool.fetchval("SELECT id FROM message_logs") == before
    assert await product.pool.fetchval("SELECT rules_since FROM watermarks WHERE name = 'planned'") == (
        product.clock.now()
    )
    await plan_an_hour_late(product, NEW)
    await with_data(product, NEW).plan_once(product.clock.now())
    assert await scheduled(product.pool) == ["2027-03-02T01:00:00Z"]


async def test_a_scheduler_with_older_data_does_not_move_messages_back(product: Product) -> None:
    """During a rolling restart the newer data count; what the older one has planned is looked at again."""
    product = with_rules(product, Rules())
    await product.create(date(1990, 3, 2))
    await plan_an_hour_late(product, NEW)
    await with_data(product, OLD).plan_once(product.clock.now())
    assert await scheduled(product.pool) == ["2027-03-02T10:00:00Z"]
    await with_data(product, NEW).plan_once(product.clock.now())
    assert await scheduled(product.pool) == ["2027-03-02T10:00:00Z"]

    await product.pool.execute("DELETE FROM message_logs")
    await product.pool.execute("UPDATE watermarks SET reached_at = '-infinity'")
    await plan_an_hour_late(product, OLD)
    await with_data(product, NEW).plan_once(product.clock.now())
    assert await scheduled(product.pool) == ["2027-03-02T09:00:00Z"]


async def test_another_send_at_moves_messages_with_older_data_as_well(product: Product) -> None:
    """An operator's setting is not held up by a scheduler that has newer data."""
    await product.create(date(1990, 3, 2))
    await with_data(product, NEW).plan_once(product.clock.now())
    late = with_rules(product, Rules(send_at=time(15)))

    await with_data(late, OLD).plan_once(product.clock.now())

    assert await scheduled(product.pool) == ["2027-03-02T15:00:00Z"]


async def are_waiting(pool: asyncpg.Pool, count: int) -> bool:
    """Say whether so many sessions of this database wait for a lock."""
    waiting: int = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return waiting == count


async def test_deleting_old_messages_by_hand_does_not_allow_a_second_greeting_in_a_year(product: Product) -> None:
    """Invariant 1 survives retention: the year stays taken although no row says so any more."""
    product.clock.advance(parse("2027-03-02T08:30:00Z") - product.clock.now())
    user_id = await product.create(date(1990, 3, 2))
    await product.pool.execute("UPDATE message_logs SET status = 'delivered'")
    await product.pool.execute(
        "DELETE FROM message_logs WHERE created_at < $1", product.clock.now() + timedelta(days=1)
    )
    await product.pool.execute("UPDATE users SET date_of_birth = '1990-12-01' WHERE id = $1", user_id)
    product.clock.advance(parse("2027-12-01T08:30:00Z") - product.clock.now())
    assert await product.planner.plan_once(product.clock.now()) == 0
    product.clock.advance(parse("2028-12-01T08:30:00Z") - product.clock.now())
    assert await product.planner.plan_once(product.clock.now()) == 1


async def test_a_database_that_has_forgotten_a_message_plans_it_under_the_same_id(product: Product) -> None:
    """After a restore, the receiver sees a key that it knows, whether the planner or the API had made the message."""
    await product.create(date(1990, 3, 1), "UTC-02:00")
    made_with_the_user = await product.pool.fetchval("DELETE FROM message_logs RETURNING id")
    await product.pool.execute("UPDATE users SET greeted_year = 0")
    for _ in range(2):
        await product.pool.execute("UPDATE watermarks SET reached_at = '-infinity'")
        assert await product.planner.plan_once(product.clock.now()) == 1
        assert await product.pool.fetchval("DELETE FROM message_logs RETURNING id") == made_with_the_user
        await product.pool.execute("UPDATE users SET greeted_year = 0")
