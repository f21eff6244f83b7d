"""The calendar of the console, and how its counts are shared."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from birthday.core.occasion import Rules
from birthday.errors import UnavailableError
from birthday.operations.calendar import FRESH, KEPT, Calendar, YearAhead
from tests.support.api import running_api
from tests.support.clock import NINE_O_CLOCK, ManualClock
from tests.support.console import Browser, browsing
from tests.support.dates import give_date, plan_type
from tests.support.product import eventually


async def counted(browser: Browser, path: str = "") -> str:
    """Return the calendar once it is counted."""
    pages: list[str] = []

    async def is_counted() -> bool:
        pages.append((await browser.get(f"/console/calendar{path}")).text)
        return "being counted" not in pages[-1]

    await eventually(is_counted, "the count is shown")
    return pages[-1]


async def test_each_day_has_the_number_of_its_dates(pool: asyncpg.Pool) -> None:
    """By local date and type, also of users who are suppressed; the largest day is named.

    The instant of the count is refreshed with the figures.
    """
    await plan_type(pool, "work-anniversary", NINE_O_CLOCK - timedelta(days=1))
    async with running_api(pool) as api, browsing(api) as browser:
        assert "No dates yet" in await counted(browser)
        for number, born in enumerate(("1990-03-02", "1991-03-02")):
            await api.create(email=f"{number}@example.com", dateOfBirth=born, timezoneOffset=-720)
        user = await api.create(dateOfBirth="1992-12-31", timezoneOffset=-720)
        await give_date(pool, UUID(user["id"]), "work-anniversary", date(2020, 3, 2))
        await pool.execute("UPDATE users SET suppressed = true")
        api.clock.advance(KEPT)
        shown = await counted(browser)
        assert 'aria-label="Monday, 2 March: 3 messages"' in shown
        assert 'aria-label="Thursday, 31 December: 1 messages"' in shown
        assert '<a href="/console/calendar/2026-03-02">2026-03-02</a>' in shown
        assert '<p class="when" id="counted" data-live>' in shown
        birthdays = await counted(browser, "?type=birthday")
        assert 'aria-label="Monday, 2 March: 2 messages"' in birthdays


async def test_the_largest_minute_is_compared_with_the_measured_rate(pool: asyncpg.Pool) -> None:
    """It is late if it takes more than a minute, and says nothing without a rate."""
    async with running_api(pool) as api, browsing(api) as browser:
        for number in range(3):
            await api.create(email=f"{number}@example.com", dateOfBirth="1990-03-02", timezoneOffset=0)
        assert "rate unknown" in (await browser.get("/console/calendar/2026-03-02")).text
        # 100 messages that fell due together yesterday took 10,000 s.
        await pool.execute(
            """
            INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from,
                                      status, attempts, sent_at, delivered_at, created_at, updated_at)
            SELECT gen_random_uuid(), gen_random_uuid(), 2026, '2026-02-28', $1::timestamptz, $1, $1, 'delivered', 1,
                   $1, $1::timestamptz + n * interval '100 s', $1, $1
            FROM generate_series(1, 100) n
            """,
            NINE_O_CLOCK - timedelta(days=1),
        )
        api.clock.advance(KEPT)
        shown = await counted(browser)
        assert "best rate" not in shown
        assert "took less than a minute, of 100 messages" in shown
        assert '<td class="n">3</td><td>Mon 09:00 UTC</td><td class="n">3</td><td class="n">5 min</td>' in shown
        assert '<span class="state bad">late</span>' in shown


async def test_a_day_shows_its_minutes_and_their_zones(pool: asyncpg.Pool) -> None:
    """Who has the same local date is greeted at different instants; who was born on 29 February is among them."""
    async with running_api(pool) as api, browsing(api) as browser:
        for number, (born, zone) in enumerate(
            (("1990-02-28", "Asia/Tokyo"), ("1992-02-29", "Asia/Tokyo"), ("1990-02-28", "America/New_York"))
        ):
            await api.create(email=f"{number}@example.com", dateOfBirth=born, timezone=zone, timezoneOffset=None)
        shown = (await browser.get("/console/calendar/2027-02-28")).text
        assert "born on 29 February" in shown
        minutes = shown[shown.index("<h2>Minutes</h2>") :]
        assert "2027-02-28 00:00:00 UTC" in minutes
        assert '<td class="n">2</td><td>Asia/Tokyo</td>' in minutes
        assert "2027-02-28 14:00:00 UTC" in minutes
        assert '<td class="n">1</td><td>America/New_York</td>' in minutes
        assert (await browser.get("/console/calendar?day=2027-02-28")).path == "/console/calendar/2027-02-28"


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/2026-13-01", 422, "is not a date of the calendar"),
        ("/2031-01-01", 404, "the calendar reaches from 2026-02-28 to 2027-03-02"),
        ("?day=nonsense", 422, "is not a date"),
        ("?type=%3Cscript%3E", 404, "no dates of the type"),
    ],
)
async def test_a_day_that_is_not_in_the_calendar_is_refused(
    pool: asyncpg.Pool, path: str, status: int, text: str
) -> None:
    """The page says what is accepted."""
    async with running_api(pool) as api, browsing(api) as browser:
        await counted(browser)
        shown = await browser.get(f"/console/calendar{path}")
        assert shown.status == status
        assert text.lower() in shown.text.lower()
        assert "<script>" not in shown.text


async def test_nobody_waits_long_for_the_first_count(pool: asyncpg.Pool) -> None:
    """While it lasts, the page says so and asks the browser to come back; then it has the numbers."""
    async with running_api(pool) as api, browsing(api) as browser:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            shown = await browser.get("/console/calendar")
            assert "being counted" in shown.text
            assert shown.headers["Refresh"] == "1"
        assert "No dates yet" in await counted(browser)


async def renewed(calendar: Calendar, known: YearAhead | None) -> YearAhead:
    """Return the first count after ``known``."""
    found = known

    async def is_renewed() -> bool:
        nonlocal found
        found = await calendar.read_year()
        return found is not known

    await eventually(is_renewed, "another count")
    assert found is not None
    return found


async def test_a_count_is_shared_for_a_minute(database_url: str) -> None:
    """Many who ask at once cause one count; later ones see it until another one is ready, for ten minutes at most."""
    counts: list[str] = []

    async def listen(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(
            lambda query: counts.append(query.query) if "GROUP BY birth_month_day\n" in query.query else None
        )

    clock = ManualClock(datetime(2026, 3, 1, 9, tzinfo=UTC))
    async with asyncpg.create_pool(database_url, min_size=1, max_size=5, init=listen) as pool:
        calendar = Calendar(pool, Rules(), clock)
        await asyncio.gather(*(calendar.read_year() for _ in range(20)))
        first = await renewed(calendar, None)
        assert len(counts) == 1
        clock.advance(FRESH - timedelta(seconds=1))
        assert await calendar.read_year() is first
        assert len(counts) == 1
        clock.advance(timedelta(seconds=1))
        assert await calendar.read_year() is first
        second = await renewed(calendar, first)
        assert len(counts) == 2
        clock.advance(KEPT)
        third = await renewed(calendar, None)
        assert (second.counted_at, third.counted_at) == (clock.now() - KEPT, clock.now())
    with pytest.raises(UnavailableError):
        await Calendar(pool, Rules(), clock).read_year()
