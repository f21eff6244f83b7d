"""Users with several yearly dates, through the API: what a change plans, moves and cancels, and what is shown of it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.support.api import Api, running_api
from tests.support.dates import plan_type, publish_type
from tests.support.product import parse

JOINED, NAME_DAY = "work-anniversary", "name-day"
BIRTHDAY = {"type": "birthday", "date": "2026-03-02", "nextMessageAt": "2026-03-02T09:00:00Z"}


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API at 09:00 UTC on 1 March 2026, a Sunday; work anniversaries are planned, name days are not."""
    async with running_api(pool) as api:
        await plan_type(pool, JOINED, api.clock.now())
        yield api


async def create(api: Api, joined: str = "2019-03-03", **others: str) -> dict[str, Any]:
    """Create a user with a birthday tomorrow and an anniversary."""
    return await api.create(dateOfBirth="1990-03-02", anniversaries={JOINED: joined, **others})


async def messages(pool: asyncpg.Pool, user: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Return type, status and instant of each message of a user."""
    rows = await pool.fetch("SELECT * FROM message_logs WHERE user_id = $1", UUID(user["id"]))
    return {(row["message_type"], row["status"], f"{row['scheduled_at']:%m-%d %H:%M}") for row in rows}


async def test_a_new_user_has_a_message_for_each_planned_type(api: Api, pool: asyncpg.Pool) -> None:
    """A type without a template is shown with its date, and has no message. The first of all is nextMessageAt."""
    user = await create(api, **{NAME_DAY: "2020-03-02"})
    assert user["nextMessageAt"] == "2026-03-02T09:00:00Z"
    assert user["occasions"] == [
        BIRTHDAY,
        {"type": NAME_DAY, "date": "2026-03-02", "nextMessageAt": None},
        {"type": JOINED, "date": "2026-03-03", "nextMessageAt": "2026-03-03T09:00:00Z"},
    ]
    assert await messages(pool, user) == {
        ("birthday", "scheduled", "03-02 09:00"),
        (JOINED, "scheduled", "03-03 09:00"),
    }
    assert api.metric("messages_scheduled_total") == 2
    read = (await api.get(f"/users/{user['id']}")).json
    assert sorted(read.pop("occasions"), key=str) == sorted(user.pop("occasions"), key=str)
    assert read == user


async def test_the_first_occurrence_is_a_year_after_the_date(api: Api, pool: asyncpg.Pool) -> None:
    """Whoever joined today is congratulated next year."""
    user = await create(api, joined="2026-03-01")
    assert user["occasions"][1] == {"type": JOINED, "date": "2027-03-01", "nextMessageAt": "2027-03-01T09:00:00Z"}
    assert await messages(pool, user) == {("birthday", "scheduled", "03-02 09:00")}


async def test_a_date_that_changes_moves_only_its_own_message(api: Api, pool: asyncpg.Pool) -> None:
    """The birthday's message stays as it is, with its id."""
    user = await create(api)
    before = await pool.fetchval("SELECT id FROM message_logs WHERE message_type = 'birthday'")
    moved = await api.patch(f"/users/{user['id']}", json={"anniversaries": {JOINED: "2019-03-02"}})
    assert [one["nextMessageAt"] for one in moved.json["occasions"]] == ["2026-03-02T09:00:00Z"] * 2
    assert await messages(pool, user) == {
        ("birthday", "scheduled", "03-02 09:00"),
        (JOINED, "cancelled", "03-03 09:00"),
        (JOINED, "scheduled", "03-02 09:00"),
    }
    assert await pool.fetchval("SELECT id FROM message_logs WHERE message_type = 'birthday'") == before


async def test_a_birthday_that_changes_leaves_the_other_dates_alone(api: Api, pool: asyncpg.Pool) -> None:
    """Only the birthday's message is cancelled."""
    user = await create(api)
    await api.patch(f"/users/{user['id']}", json={"dateOfBirth": "1990-07-01"})
    assert await messages(pool, user) == {
        ("birthday", "cancelled", "03-02 09:00"),
        (JOINED, "scheduled", "03-03 09:00"),
    }


async def test_a_zone_that_changes_moves_every_message(api: Api, pool: asyncpg.Pool) -> None:
    """Each date is greeted at nine in the new zone."""
    user = await create(api)
    await api.patch(f"/users/{user['id']}", json={"timezone": "Asia/Tokyo", "timezoneOffset": None})
    assert {one for one in await messages(pool, user) if one[1] == "scheduled"} == {
        ("birthday", "scheduled", "03-02 00:00"),
        (JOINED, "scheduled", "03-03 00:00"),
    }


async def test_a_deleted_user_gets_no_message_of_any_type(api: Api, pool: asyncpg.Pool) -> None:
    """Deletion cancels all that is pending."""
    user = await create(api)
    await api.delete(f"/users/{user['id']}")
    assert await messages(pool, user) == {
        ("birthday", "cancelled", "03-02 09:00"),
        (JOINED, "cancelled", "03-03 09:00"),
    }


@pytest.mark.parametrize("status", ["delivered", "failed"])
async def test_a_date_that_is_taken_back_and_given_again_is_not_greeted_twice(
    api: Api, pool: asyncpg.Pool, status: str
) -> None:
    """The year stays taken while the user has no such date; the date is shown for next year."""
    user = await create(api, joined="2019-03-01")
    await pool.execute("UPDATE message_logs SET status = $1 WHERE message_type = $2", status, JOINED)
    taken = await api.patch(f"/users/{user['id']}", json={"anniversaries": {JOINED: None}})
    assert taken.json["occasions"] == [BIRTHDAY]
    given = await api.patch(f"/users/{user['id']}", json={"anniversaries": {JOINED: "2019-03-02"}})
    assert given.json["occasions"][1] == {"type": JOINED, "date": "2027-03-02", "nextMessageAt": "2027-03-02T09:00:00Z"}
    assert await messages(pool, user) == {("birthday", "scheduled", "03-02 09:00"), (JOINED, status, "03-01 09:00")}


async def test_a_date_that_is_taken_back_cancels_its_message(api: Api, pool: asyncpg.Pool) -> None:
    """If it was not sent, the same date given again is greeted."""
    user = await create(api)
    await api.patch(f"/users/{user['id']}", json={"anniversaries": {JOINED: None}})
    assert (JOINED, "cancelled", "03-03 09:00") in await messages(pool, user)
    api.clock.advance(timedelta(hours=1))
    await api.patch(f"/users/{user['id']}", json={"anniversaries": {JOINED: "2019-03-03"}})
    assert (JOINED, "scheduled", "03-03 09:00") in await messages(pool, user)


async def test_a_type_that_is_published_later_gets_its_instants(api: Api, pool: asyncpg.Pool) -> None:
    """Once the planner has seen the template, users show when they get the message."""
    user = await create(api, **{NAME_DAY: "2020-05-01"})
    await publish_type(pool, NAME_DAY, api.clock.now())
    await pool.execute("INSERT INTO planned_types VALUES ($1, $2)", NAME_DAY, parse("2026-03-01T10:00:00Z"))
    read = (await api.get(f"/users/{user['id']}")).json
    assert read["occasions"][2] == {"type": NAME_DAY, "date": "2026-05-01", "nextMessageAt": "2026-05-01T09:00:00Z"}


async def test_the_api_explains_a_user(api: Api) -> None:
    """As the command does: for one type or all, this year or another."""
    user = await create(api, **{NAME_DAY: "2020-05-01"})
    answer = await api.get(f"/users/{user['id']}/explain")
    assert answer.status == 200
    assert answer.json["userId"] == user["id"]
    assert {one["type"]: one["outcome"] for one in answer.json["occasions"]} == {
        "birthday": "scheduled",
        JOINED: "scheduled",
        NAME_DAY: "no-template",
    }
    one = await api.get(f"/users/{user['id']}/explain?type=birthday&year=1990")
    assert [(each["outcome"], each["year"]) for each in one.json["occasions"]] == [("first-year", 1990)]


@pytest.mark.parametrize("query", ["year=0", "year=x", "year=10000", "type=Birthday", "month=1"])
async def test_a_bad_question_is_refused(api: Api, query: str) -> None:
    """The answer names the parameter."""
    user = await create(api)
    assert (await api.get(f"/users/{user['id']}/explain?{query}")).status == 422
