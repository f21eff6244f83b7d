"""The forecast on a real database: what it says is what the planner then plans, and nothing that is done already."""

import io
import json
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta

import asyncpg
import pytest
from rich.cells import cell_len

from birthday.broker.postgres import PostgresBroker
from birthday.cli.render.forecast import print_forecast, write_json
from birthday.core.forecast import DeliveryRate, Forecast, Peak
from birthday.core.ident import uuid7
from birthday.core.occasion import LeapDay, Rules
from birthday.operations.forecast import Forecaster
from birthday.store.users import Planning, delete_user
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.product import Product, metric, parse
from tests.support.users import TESTER, create_user, make_profiles

DAY = timedelta(days=1)
SPREAD = [
    "UTC",
    "UTC+05:45",
    "America/New_York",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Pago_Pago",
    "Asia/Kolkata",
]


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 12:20 UTC on 26 February 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-02-26T12:20:00Z")), Metrics())


async def ahead(product: Product, days: float) -> Forecast:
    """Forecast so many days from now."""
    now = product.clock.now()
    return await product.forecaster.forecast(now, now + timedelta(days=days))


async def planned_between(product: Product, after: datetime, until: datetime) -> dict[datetime, int]:
    """Let the planner plan through a span of time, and return what fell due in it, by instant."""
    while product.clock.now() < until:
        product.clock.advance(DAY)
        await product.planner.plan_once(product.clock.now())
    rows = await product.pool.fetch("SELECT scheduled_at FROM message_logs WHERE status <> 'cancelled'")
    return Counter(row["scheduled_at"] for row in rows if after < row["scheduled_at"] <= until)


@pytest.mark.parametrize(
    ("start", "leap_day"),
    [
        pytest.param("2027-02-26T12:20:00Z", LeapDay.FEB28, id="29 February on the 28th"),
        pytest.param("2027-02-26T12:20:00Z", LeapDay.MAR1, id="29 February on 1 March"),
        pytest.param("2028-02-26T12:20:00Z", LeapDay.FEB28, id="leap year"),
        pytest.param("2027-03-11T12:20:00Z", LeapDay.FEB28, id="clocks go forward in New York"),
        pytest.param("2027-12-29T12:20:00Z", LeapDay.FEB28, id="new year"),
    ],
)
async def test_what_the_forecast_says_is_what_the_planner_plans(
    pool: asyncpg.Pool, start: str, leap_day: LeapDay
) -> None:
    """By instant, across leap days, clock changes and the new year; some of it is planned already, some is not yet."""
    planning = Planning(Rules(leap_day=leap_day), timedelta(hours=48))
    product = Product(pool, PostgresBroker(pool), ManualClock(parse(start)), Metrics(), planning)
    now = product.clock.now()
    for number in range(8):
        for zone in SPREAD:
            for born in {date(1992, 2, 29), date(1991, 1, 1), (now + (number - 1) * DAY).date().replace(year=1988)}:
                await product.create(born, zone)
    forecast = await ahead(product, 6)
    assert forecast.messages > 0
    assert (await product.statuses())["scheduled"] > 0
    assert forecast.due == await planned_between(product, now, now + 6 * DAY)


async def test_a_crowd_of_made_up_users_is_forecast_as_it_is_planned(product: Product) -> None:
    """Zones and dates of birth as real users have them, over six weeks."""
    for profile in make_profiles(400, seed=7):
        now = product.clock.now()
        await create_user(product.pool, uuid7(now), profile, now, product.planning)
    now = product.clock.now()
    forecast = await ahead(product, 42)
    assert forecast.due == await planned_between(product, now, now + 42 * DAY)


async def test_who_needs_no_message_is_not_counted(product: Product) -> None:
    """Greeted this year, under an older birthday or by a message that retention has removed; deleted; born in it."""
    born = date(1990, 3, 10)
    counted = await product.create(born)
    greeted, remembered, deleted = [await product.create(born) for _ in range(3)]
    await product.create(date(2027, 3, 10))
    await product.pool.execute("UPDATE users SET greeted_year = 2027 WHERE id = $1", remembered)
    await product.pool.execute(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                                  created_at, updated_at)
        SELECT uuid_v7($2), id, 2027, '2027-01-05', $2, $2, $2, 'delivered', $2, $2 FROM users WHERE id = $1
        """,
        greeted,
        product.clock.now() - 50 * DAY,
    )
    await delete_user(product.pool, deleted, product.clock.now(), TESTER)
    assert (await ahead(product, 20)).due == {parse("2027-03-10T09:00:00Z"): 1}
    await product.pool.execute("UPDATE users SET greeted_year = 2026 WHERE id = $1", counted)
    assert (await ahead(product, 20)).messages == 1


@pytest.mark.parametrize(
    ("status", "counted"),
    [
        ("scheduled", 1),
        ("cancelled", 1),
        ("queued", 0),
        ("sending", 0),
        ("delivered", 0),
        ("failed", 0),
        ("expired", 0),
    ],
)
async def test_a_planned_message_is_counted_once_and_one_that_has_left_not_at_all(
    product: Product, status: str, counted: int
) -> None:
    """A user with a message is not due a second time; a cancelled one is made anew by the planner."""
    await product.create(date(1990, 2, 27))
    await product.pool.execute("UPDATE message_logs SET status = $1", status)
    assert (await ahead(product, 3)).messages == counted


async def test_what_is_planned_counts_at_the_instant_that_it_is_planned_for(product: Product) -> None:
    """SEND_AT was changed since: the message goes out when it was planned to, and only later ones at the new time."""
    await product.create(date(1990, 2, 27))
    await product.create(date(1990, 3, 5))
    later = replace(product.forecaster, rules=Rules(send_at=parse("2027-01-01T18:00:00Z").time()))
    now = product.clock.now()
    assert (await later.forecast(now, now + 10 * DAY)).due == {
        parse("2027-02-27T09:00:00Z"): 1,
        parse("2027-03-05T18:00:00Z"): 1,
    }


async def test_an_unknown_zone_is_named_and_keeps_nobody_else_out(product: Product) -> None:
    """Written by other means than ours; nobody can say when its users are due."""
    await product.create(date(1990, 3, 10))
    lost = await product.create(date(1990, 3, 10))
    await product.pool.execute("UPDATE users SET timezone = 'Mars/Base' WHERE id = $1", lost)
    forecast = await ahead(product, 20)
    assert (forecast.messages, forecast.unknown_zones) == (1, ("Mars/Base",))


async def burst(product: Product, at: str, count: int, seconds: float, status: str = "delivered") -> None:
    """Store messages that fell due together and were delivered one after the other, evenly, in so many seconds."""
    await product.pool.execute(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                                  sent_at, delivered_at, created_at, updated_at)
        SELECT gen_random_uuid(), gen_random_uuid(), 2027, $1::timestamptz::date, $1, $1, $1, $4,
               $1::timestamptz + (n - 1) * $3::float8 / $2 * interval '1 s',
               $1::timestamptz + n * $3::float8 / $2 * interval '1 s', $1, $1
        FROM generate_series(1, $2::integer) n
        """,
        parse(at),
        count,
        seconds,
        status,
    )


async def test_the_rate_is_the_one_that_held_for_a_minute(product: Product) -> None:
    """Not that of a burst of seconds, however fast; nor that of one that an outage drew out."""
    await burst(product, "2027-02-25T09:00:00Z", 3000, seconds=5)
    await burst(product, "2027-02-25T10:00:00Z", 900, seconds=90)
    await burst(product, "2027-02-25T11:00:00Z", 600, seconds=120)
    await burst(product, "2027-02-25T12:00:00Z", 100, seconds=10_000)
    rate = await product.forecaster.measure_rate(product.clock.now())
    assert rate is not None
    assert rate.is_sustained
    assert rate.measured_of == Peak(parse("2027-02-25T10:00:00Z"), 900)
    assert rate.per_second == pytest.approx(10, rel=0.02)


async def test_without_a_long_burst_the_rate_is_that_of_the_fastest_one(product: Product) -> None:
    """A slow one, a small one, one that failed and one that is too old do not count; it is not said to be sustained."""
    await burst(product, "2027-02-25T09:00:00Z", 300, seconds=3)
    await burst(product, "2027-02-25T10:00:00Z", 400, seconds=40)
    await burst(product, "2027-02-25T11:00:00Z", 99, seconds=0.1)
    await burst(product, "2027-02-25T12:00:00Z", 900, seconds=1, status="failed")
    await burst(product, "2027-02-19T12:00:00Z", 900, seconds=1)
    rate = await product.forecaster.measure_rate(product.clock.now())
    assert rate is not None
    assert not rate.is_sustained
    assert rate.measured_of == Peak(parse("2027-02-25T09:00:00Z"), 300)
    assert rate.per_second == pytest.approx(100, rel=0.001)


async def test_the_few_that_were_tried_again_do_not_make_a_burst_slow(product: Product) -> None:
    """One in a hundred arrived a minute later, and one was requeued by hand the next day."""
    await burst(product, "2027-02-25T09:00:00Z", 990, seconds=9.9)
    await product.pool.execute(
        """
        UPDATE message_logs SET delivered_at = delivered_at + interval '60 s'
        WHERE id IN (SELECT id FROM message_logs LIMIT 9)
        """
    )
    await product.pool.execute(
        """
        UPDATE message_logs SET delivered_at = delivered_at + interval '1 day', requeued_at = delivered_at
        WHERE id IN (SELECT id FROM message_logs WHERE delivered_at < '2027-02-25T09:00:20Z' LIMIT 1)
        """
    )
    rate = await product.forecaster.measure_rate(product.clock.now())
    assert rate is not None
    assert rate.per_second == pytest.approx(100, rel=0.02)


async def test_without_a_burst_the_rate_is_unknown(product: Product) -> None:
    """Nothing was ever delivered, or only ever a few at a time."""
    assert await product.forecaster.measure_rate(product.clock.now()) is None
    await burst(product, "2027-02-25T09:00:00Z", 99, seconds=1)
    assert await product.forecaster.measure_rate(product.clock.now()) is None


async def test_the_janitor_shows_the_next_day_as_gauges(product: Product) -> None:
    """Each hour of the day, the largest minute, the rate, and how long the minute takes at it."""
    for _ in range(3):
        await product.create(date(1990, 2, 27))
    await product.create(date(1990, 2, 27), "UTC+05:45")
    await product.create(date(1990, 2, 28))
    await product.janitor.forecast_once(product.clock.now())
    assert metric(product.metrics, "forecast_messages", hour="09") == 3
    assert metric(product.metrics, "forecast_messages", hour="03") == 1
    assert sum(metric(product.metrics, "forecast_messages", hour=f"{hour:02}") for hour in range(24)) == 4
    assert metric(product.metrics, "forecast_largest_minute_messages") == 3
    assert metric(product.metrics, "forecast_largest_minute_time") == parse("2027-02-27T09:00:00Z").timestamp()
    assert sample(product, "forecast_delivery_rate") is None
    assert sample(product, "forecast_drain_seconds") is None
    await burst(product, "2027-02-25T09:00:00Z", 100, seconds=10_000)
    await product.janitor.forecast_once(product.clock.now())
    assert metric(product.metrics, "forecast_delivery_rate") == pytest.approx(0.01, rel=0.01)
    assert metric(product.metrics, "forecast_drain_seconds") == pytest.approx(300, rel=0.01)


async def test_a_day_without_birthdays_takes_no_time(product: Product) -> None:
    """Every hour says 0, and so does the largest minute, which is at no time; nothing has to be delivered."""
    await product.janitor.forecast_once(product.clock.now())
    assert {metric(product.metrics, "forecast_messages", hour=f"{hour:02}") for hour in range(24)} == {0}
    assert sample(product, "forecast_largest_minute_messages") == 0
    assert sample(product, "forecast_largest_minute_time") is None
    assert sample(product, "forecast_drain_seconds") == 0


def sample(product: Product, name: str) -> float | None:
    """Return the value of a sample without labels, None if there is no such sample."""
    return product.metrics.registry.get_sample_value(f"birthday_scheduler_{name}")


FORECAST = Forecast(
    parse("2027-03-01T10:15:00Z"),
    parse("2027-03-03T10:15:00Z"),
    {
        parse("2027-03-01T11:00:00Z"): 16_000,
        parse("2027-03-01T11:30:00Z"): 15_999,
        parse("2027-03-01T13:00:00Z"): 1,
        parse("2027-03-03T09:00:00Z"): 1,
    },
    ("Mars/Base",),
)
MEASURED = DeliveryRate(200, Peak(parse("2027-02-28T09:00:00Z"), 5000))


def test_the_table_has_a_line_a_day_with_a_plot_of_its_hours() -> None:
    """The highest hour of a day is a full block, a single message is still seen, an hour without any is empty."""
    out = io.StringIO()
    print_forecast(FORECAST, MEASURED, out)
    lines = out.getvalue().splitlines()
    assert lines[1].split()[1:] == ["2027-03-01", "32,000", "█", "▁", "11:00", "16,000", "80.0", "s"]
    assert lines[2].split()[1:] == ["2027-03-02", "0", "-", "-", "-"]
    assert lines[3].split()[1:] == ["2027-03-03", "1", "█", "09:00", "1", "0.0", "s"]
    # Each bar stands under its hour.
    zero = lines[0].index("0     6")
    assert [line.index(bar) - zero for line, bar in ((lines[1], "█"), (lines[1], "▁"), (lines[3], "█"))] == [11, 13, 9]
    assert all(cell_len(line) <= 100 for line in lines)


def test_below_the_table_stands_what_it_means() -> None:
    """The sum, the largest minute, where the rate comes from, and whether everybody is greeted on time."""
    out = io.StringIO()
    print_forecast(FORECAST, MEASURED, out)
    assert out.getvalue().split("\n\n")[1].splitlines() == [
        "32,001 messages fall due until 2027-03-03 10:15 UTC",
        "the largest minute is 2027-03-01 11:00 UTC: 16,000 messages",
        "200.0 messages/s were delivered of 5,000 that fell due at 2027-02-28 09:00 UTC",
        "it takes 80.0 s to drain, so LATE: some are delivered more than 60 s after",
        "note: 'Mars/Base' is not a time zone: its users are not counted",
    ]


def test_an_unknown_rate_is_said_and_one_that_suffices_is_too() -> None:
    """Nothing is promised at a rate that nobody measured."""
    unknown, enough = io.StringIO(), io.StringIO()
    print_forecast(FORECAST, None, unknown)
    assert "the delivery rate is unknown" in unknown.getvalue()
    assert "to drain, so" not in unknown.getvalue()
    print_forecast(FORECAST, DeliveryRate(800, None), enough)
    assert "it takes 20.0 s to drain, so on time: all are delivered within 60 s" in enough.getvalue()
    assert "were delivered of" not in enough.getvalue()


def test_a_rate_that_may_not_hold_promises_nothing() -> None:
    """It is an upper limit: what is late at that rate is late, and what is on time may be."""
    late, maybe = io.StringIO(), io.StringIO()
    print_forecast(FORECAST, DeliveryRate(200, MEASURED.measured_of, is_sustained=False), late)
    assert "so LATE: some are delivered more than 60 s after" in late.getvalue()
    print_forecast(FORECAST, DeliveryRate(800, MEASURED.measured_of, is_sustained=False), maybe)
    assert "whether the rate holds for longer is not known" in maybe.getvalue()
    assert "so if that rate holds, on time: all are delivered within 60 s after" in maybe.getvalue()


def test_json_has_the_hours_the_largest_minute_and_what_follows() -> None:
    """One object, with instants in UTC."""
    out = io.StringIO()
    write_json(FORECAST, MEASURED, out)
    assert json.loads(out.getvalue()) == {
        "from": "2027-03-01T10:15:00Z",
        "to": "2027-03-03T10:15:00Z",
        "messages": 32_001,
        "hours": [
            {"at": "2027-03-01T11:00:00Z", "messages": 31_999},
            {"at": "2027-03-01T13:00:00Z", "messages": 1},
            {"at": "2027-03-03T09:00:00Z", "messages": 1},
        ],
        "largestMinute": {"at": "2027-03-01T11:00:00Z", "messages": 16_000},
        "deliveryRate": 200,
        "rateMeasuredAt": "2027-02-28T09:00:00Z",
        "drainSeconds": 80,
        "unknownZones": ["Mars/Base"],
    }


async def test_the_cost_follows_the_birthdays_and_not_the_users(database_url: str) -> None:
    """A day's forecast reads no table from one end to the other, and of the users only those whose birthday it is."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        await pool.execute(
            """
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at,
                               updated_at)
            SELECT gen_random_uuid(), 'Ada', 'Lovelace', n || '@example.com', '1990-01-01'::date + n,
                   ($1::text[])[1 + n % 7], $2, $2, $2
            FROM generate_series(1, 20000) n
            """,
            SPREAD,
            parse("2027-01-01T00:00:00Z"),
        )
        await pool.execute("VACUUM ANALYZE users")
        before = await rows_read(pool)
        now = parse("2027-02-26T12:20:00Z")
        forecast = await Forecaster(pool, Rules()).forecast(now, now + DAY)
        scanned, fetched = [after - one for after, one in zip(await rows_read(pool), before, strict=True)]
    assert forecast.messages > 30
    assert scanned == 0
    # One look for each zone besides those who are counted.
    assert fetched <= 2 * forecast.messages


async def rows_read(pool: asyncpg.Pool) -> tuple[int, int]:
    """Return how many users have been read so far by scans of the table, and how many through an index."""
    await pool.execute("SELECT pg_stat_force_next_flush()")
    row = await pool.fetchrow(
        "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'users'",
    )
    assert row is not None
    return row["seq_tup_read"], row["idx_tup_fetch"]
