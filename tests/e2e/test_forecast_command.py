"""``birthday forecast`` from outside."""

import json
from datetime import UTC, datetime, timedelta

import aiohttp
import asyncpg
import pytest

from tests.support.product import eventually
from tests.support.program import Program, run, running

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
SOON = NOON + timedelta(days=2)


@pytest.fixture
async def crowd(database_url: str) -> str:
    """Return the URL of a database with 5000 users whose birthday is in two days, in UTC, and 10 elsewhere."""
    connection = await asyncpg.connect(database_url)
    for zone, count in (("UTC", 5000), ("Asia/Kolkata", 10)):
        await connection.execute(
            """
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at,
                               updated_at)
            SELECT gen_random_uuid(), 'Ada', 'Lovelace', $2 || n, $3, $2, $4, $4, $4 FROM generate_series(1, $1) n
            """,
            count,
            zone,
            SOON.date().replace(year=1992),
            NOON - timedelta(days=30),
        )
    await connection.close()
    return database_url


async def test_the_largest_minute_is_found_and_set_against_a_rate(crowd: str) -> None:
    """As an object for programs; instants are those of SEND_AT in each zone."""
    finished = await run("forecast", "--rate", "50", "--json", DATABASE_URL=crowd)
    assert finished.status == 0
    forecast = json.loads(finished.out)
    assert forecast["messages"] == 5010
    assert forecast["largestMinute"] == {"at": f"{SOON:%Y-%m-%d}T09:00:00Z", "messages": 5000}
    assert forecast["hours"] == [
        {"at": f"{SOON:%Y-%m-%d}T03:00:00Z", "messages": 10},
        {"at": f"{SOON:%Y-%m-%d}T09:00:00Z", "messages": 5000},
    ]
    assert (forecast["deliveryRate"], forecast["drainSeconds"]) == (50, 100)


async def test_for_a_person_there_is_a_table_and_what_it_means(crowd: str) -> None:
    """One line a day, from today to the last one; the rate is not known yet."""
    finished = await run("forecast", "--days", "3", DATABASE_URL=crowd)
    assert finished.status == 0
    days = [line for line in finished.out.splitlines() if line.strip()[4:8].isdecimal()]
    assert len(days) == 4
    [busy] = [line for line in days if "5,010" in line]
    assert "█" in busy
    assert f"{SOON:%Y-%m-%d}" in busy
    assert "the delivery rate is unknown" in finished.out


async def test_it_says_in_which_zones_the_messages_fall_due(crowd: str) -> None:
    """The largest zone first, with the minute in which most of its messages do."""
    day = f"{SOON:%Y-%m-%d}"
    finished = await run("forecast", "--by", "zone", "--json", DATABASE_URL=crowd)
    assert json.loads(finished.out)["zones"] == [
        {"zone": "UTC", "messages": 5000, "largestMinuteAt": f"{day}T09:00:00Z"},
        {"zone": "Asia/Kolkata", "messages": 10, "largestMinuteAt": f"{day}T03:30:00Z"},
    ]
    screen = (await run("forecast", "--by", "zone", DATABASE_URL=crowd)).out.splitlines()
    rows = [line.split() for line in screen if line.strip().startswith(("UTC", "Asia"))]
    assert [row[:2] for row in rows] == [["UTC", "5,000"], ["Asia/Kolkata", "10"]]


@pytest.mark.parametrize("arguments", [("--days", "0"), ("--days", "367"), ("--rate", "0"), ("--rate", "fast")])
async def test_a_wrong_argument_is_refused(arguments: tuple[str, str]) -> None:
    """Status 2, and a line that says what is accepted."""
    finished = await run("forecast", *arguments)
    assert finished.status == 2
    assert arguments[0] in finished.err


async def test_the_scheduler_shows_the_gauges_as_soon_as_it_runs(crowd: str) -> None:
    """So an alert knows of tomorrow's peak right after a start."""
    async with running("--role", "scheduler", DATABASE_URL=crowd) as program:
        await eventually(lambda: shows_forecast(program), "the janitor has looked ahead")


async def shows_forecast(program: Program) -> bool:
    """Say whether the metrics page has the gauges."""
    async with aiohttp.ClientSession() as session, session.get(f"{program.url}/metrics") as response:
        page = await response.text()
    gauges = ('forecast_messages{hour="09"}', "forecast_largest_minute_messages")
    return all(f"\nbirthday_scheduler_{gauge} " in page for gauge in gauges)
