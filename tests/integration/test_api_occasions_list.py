"""Whose day it is, over HTTP: by zone, with the state of each message."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from benchmarks.population import populate
from tests.support.api import Api, running_api
from tests.support.clock import ManualClock


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API with users in three zones; it is 09:00 UTC on 1 March 2026, and name days are planned."""
    async with running_api(pool) as api:
        await pool.execute("INSERT INTO planned_types VALUES ('name-day', $1)", api.clock.now() - timedelta(days=9))
        for number, (born, zone) in enumerate(
            [
                ("1990-03-02", "Europe/London"),
                ("--03-02", "Asia/Tokyo"),
                ("2026-03-01", "Asia/Tokyo"),
                ("1990-03-02", "Asia/Tokyo"),
                ("1990-03-03", "Asia/Tokyo"),
                ("2000-02-29", "America/New_York"),
            ]
        ):
            days = {"name-day": "2019-03-02", "work-day": "2019-03-02"} if number == 0 else None
            await api.create(
                email=f"{number}@example.com", dateOfBirth=born, timezone=zone, timezoneOffset=None, anniversaries=days
            )
            # Ids sort by creation.
            api.clock.advance(timedelta(milliseconds=1))
        yield api


def seen(page: dict[str, Any]) -> list[tuple[str, str, int | None, str | None, str | None]]:
    """Return the occasions of a page in short."""
    return [(one["timezone"], one["type"], one["years"], one["dueAt"], one["status"]) for one in page["occasions"]]


async def test_a_date_has_everybody_whose_day_it_is(api: Api) -> None:
    """Zone by zone: who, how many years, when it is due, and the message; the first page counts the zones."""
    page = (await api.get("/occasions?date=2026-03-02")).json
    assert seen(page) == [
        ("Asia/Tokyo", "birthday", None, "2026-03-02T00:00:00Z", "scheduled"),
        ("Asia/Tokyo", "birthday", 36, "2026-03-02T00:00:00Z", "scheduled"),
        ("Europe/London", "birthday", 36, "2026-03-02T09:00:00Z", "scheduled"),
        ("Europe/London", "name-day", 7, "2026-03-02T09:00:00Z", "scheduled"),
    ]
    assert page["zones"] == [
        {"timezone": "Asia/Tokyo", "date": "2026-03-02", "dueAt": "2026-03-02T00:00:00Z", "occasions": 2},
        {"timezone": "Europe/London", "date": "2026-03-02", "dueAt": "2026-03-02T09:00:00Z", "occasions": 2},
    ]
    one = page["occasions"][0]
    assert (await api.get(f"/messages/{one['messageId']}")).json["userId"] == one["userId"]


async def test_types_leap_days_and_other_years(api: Api) -> None:
    """A type selects its own, planned or not; 29 February counts where LEAP_DAY says; nobody counts before birth."""
    assert [one[1] for one in seen((await api.get("/occasions?date=2026-03-02&type=name-day")).json)] == ["name-day"]
    unplanned = seen((await api.get("/occasions?date=2026-03-02&type=work-day")).json)
    assert unplanned == [("Europe/London", "work-day", 7, None, None)]
    leap = seen((await api.get("/occasions?date=2027-02-28")).json)
    assert leap == [("America/New_York", "birthday", 27, "2027-02-28T14:00:00Z", None)]
    assert seen((await api.get("/occasions?date=1990-03-02")).json) == [("Asia/Tokyo", "birthday", None, None, None)]
    assert (await api.get("/occasions?date=2026-07-07")).json == {"occasions": [], "zones": [], "nextCursor": None}


@pytest.mark.parametrize("query", ["", "date=2026-02-30", "date=0001-01-01", "date=2026-03-02&type=A", "date=today"])
async def test_a_date_is_needed(api: Api, query: str) -> None:
    """A missing or wrong date or type is refused."""
    answer = await api.get(f"/occasions?{query}")
    assert (answer.status, answer.json["code"]) == (422, "invalid_parameter")


async def test_pages_put_together_are_the_whole_day(pool: asyncpg.Pool) -> None:
    """Pages of any size follow each other without a gap over the ends of zones."""
    clock = ManualClock()
    async with pool.acquire() as connection:
        await populate(connection, 6_000, clock.now() - timedelta(days=400))
    async with running_api(pool, clock=clock) as api:
        whole = (await api.get("/occasions?date=2026-01-01&limit=500")).json
        assert whole["nextCursor"] is None
        assert sum(zone["occasions"] for zone in whole["zones"]) == len(whole["occasions"]) > 100
        parts: list[dict[str, Any]] = []
        path = "/occasions?date=2026-01-01&limit=7"
        while path:
            answer = await api.get(path)
            assert (answer.json["zones"] is None) == bool(parts)
            parts += answer.json["occasions"]
            path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert parts == whole["occasions"]
