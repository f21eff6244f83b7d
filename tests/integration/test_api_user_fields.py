"""What few users have, over HTTP: an own id, locale, attributes, yearly dates, suppression, no year of birth."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from birthday.store.connection import borrow
from birthday.store.users import lock_profile
from tests.support.api import RUNBOOK_USER, Api, running_api
from tests.support.product import eventually, is_waiting_for_a_lock

FIELDS: dict[str, Any] = {
    "externalId": "crm-4711",
    "locale": "pt-BR",
    "attributes": {"team": "blau", "floors": [1, 2.5, None, {"deep": True}], "big": 1e300},
    "anniversaries": {"wedding": "2004-02-29", "work-anniversary": "2019-03-04"},
}


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


async def dates(pool: asyncpg.Pool) -> dict[str, tuple[date | None, str, datetime, datetime | None]]:
    """Return what is stored of each type of yearly date: date, zone, since when, and when it was deleted."""
    rows = await pool.fetch("SELECT message_type, date, timezone, schedule_from, deleted_at FROM anniversaries")
    return {row["message_type"]: tuple(row)[1:] for row in rows}


async def test_a_user_is_shown_as_given_and_may_be_sent_back(api: Api) -> None:
    """What POST takes, GET and the list show; PUT of what GET showed changes nothing."""
    user = await api.create(**FIELDS, dateOfBirth="--02-29")
    assert {name: user[name] for name in FIELDS} == FIELDS
    assert (user["dateOfBirth"], user["suppressed"]) == ("--02-29", False)
    assert user["nextMessageAt"] == "2027-02-28T09:00:00Z"
    path = f"/users/{user['id']}"
    assert (await api.get(path)).json == user
    assert (await api.get("/users")).json["users"] == [user]
    api.clock.advance(timedelta(hours=1))
    answer = await api.put(path, json=user)
    assert (answer.status, answer.json) == (200, user)


async def test_a_change_is_stored_and_a_replacement_clears(api: Api) -> None:
    """PATCH merges the two objects; PUT without a field takes it away."""
    user = await api.create(**FIELDS)
    path = f"/users/{user['id']}"
    changed = await api.patch(
        path, json={"attributes": {"team": None, "x": 1}, "anniversaries": {"wedding": None, "arrival": "2020-01-01"}}
    )
    assert changed.json["attributes"] == {"x": 1} | {name: FIELDS["attributes"][name] for name in ("floors", "big")}
    assert changed.json["anniversaries"] == {"work-anniversary": "2019-03-04", "arrival": "2020-01-01"}
    assert (await api.get(path)).json == changed.json
    cleared = await api.put(path, json=RUNBOOK_USER)
    assert {name: cleared.json[name] for name in FIELDS} == {
        "externalId": None,
        "locale": None,
        "attributes": {},
        "anniversaries": {},
    }
    assert (await api.get(path)).json == cleared.json


async def test_an_external_id_belongs_to_one_live_user(api: Api) -> None:
    """Whatever writes it, the second one is told which field it is; after a deletion the id is free again."""
    first = await api.create(externalId="7")
    other = await api.create(email="b@example.com", externalId="8")
    body = RUNBOOK_USER | {"email": "c@example.com", "externalId": "7"}
    for answer in (
        await api.post("/users", json=body),
        await api.put(f"/users/{other['id']}", json=body),
        await api.patch(f"/users/{other['id']}", json={"externalId": "7"}),
    ):
        assert (answer.status, answer.pointers) == (409, ["/externalId"])
        assert "this externalId" in answer.json["errors"][0]["detail"]
    assert (await api.patch(f"/users/{first['id']}", json={"externalId": "7"})).status == 200
    await api.delete(f"/users/{first['id']}")
    assert (await api.post("/users", json=body)).status == 201


async def test_of_concurrent_users_with_one_external_id_one_is_created(api: Api) -> None:
    """The others are conflicts, and those that are created in the same statement are not harmed."""
    bodies = [
        RUNBOOK_USER | {"email": f"{number}@example.com", "externalId": "same" if number % 2 else f"own-{number}"}
        for number in range(20)
    ]
    answers = await asyncio.gather(*(api.post("/users", json=body) for body in bodies))
    assert sorted(answer.status for answer in answers[1::2]) == [201] + [409] * 9
    assert [answer.status for answer in answers[::2]] == [201] * 10


async def test_each_date_has_a_schedule_of_its_own(api: Api, pool: asyncpg.Pool) -> None:
    """Only what differs begins anew: one date, or with the zone all; a date that is taken back leaves its row."""
    user = await api.create(**FIELDS)
    path, created = f"/users/{user['id']}", api.clock.now()
    wedding, work = date(2004, 2, 29), date(2019, 3, 4)
    assert await dates(pool) == {
        "wedding": (wedding, "UTC+00:00", created, None),
        "work-anniversary": (work, "UTC+00:00", created, None),
    }
    api.clock.advance(timedelta(hours=1))
    first_change = api.clock.now()
    await api.patch(path, json={"dateOfBirth": "1991-01-01", "anniversaries": {"wedding": "2005-05-05"}})
    assert await dates(pool) == {
        "wedding": (date(2005, 5, 5), "UTC+00:00", first_change, None),
        "work-anniversary": (work, "UTC+00:00", created, None),
    }
    await api.patch(path, json={"anniversaries": {"wedding": None}})
    again = first_change + timedelta(microseconds=1)
    assert (await dates(pool))["wedding"] == (None, "UTC+00:00", again, None)
    await api.patch(path, json={"anniversaries": {"wedding": "2004-02-29"}})
    api.clock.advance(timedelta(hours=1))
    await api.patch(path, json={"timezone": "Asia/Tokyo"})
    assert await dates(pool) == {
        "wedding": (wedding, "Asia/Tokyo", api.clock.now(), None),
        "work-anniversary": (work, "Asia/Tokyo", api.clock.now(), None),
    }
    await api.delete(path)
    assert {stored[3] for stored in (await dates(pool)).values()} == {api.clock.now()}


async def test_a_change_sees_the_dates_of_the_one_before(api: Api, pool: asyncpg.Pool) -> None:
    """A change that waited for another one keeps what that one has added, and a deletion marks it."""
    user = await api.create()
    path, user_id = f"/users/{user['id']}", UUID(user["id"])
    async with borrow(pool) as connection, connection.transaction():
        await lock_profile(connection, user_id)
        later = asyncio.create_task(api.patch(path, json={"anniversaries": {"b": "2002-02-02"}}))
        await eventually(lambda: is_waiting_for_a_lock(pool), "the later change waits")
        await connection.execute(
            "INSERT INTO anniversaries VALUES ($1, 'a', '2001-01-01', DEFAULT, 'UTC', $2)", user_id, api.clock.now()
        )
    assert (await later).json["anniversaries"] == {"a": "2001-01-01", "b": "2002-02-02"}


async def test_the_list_of_those_who_opted_out_decides(api: Api) -> None:
    """Once suppressed, a user stays so over PATCH, PUT and a deletion, and there is no next message."""
    user = await api.create(dateOfBirth="1990-03-02")
    path = f"/users/{user['id']}"
    suppressed = await api.patch(path, json={"suppressed": True})
    assert (suppressed.json["suppressed"], suppressed.json["nextMessageAt"]) == (True, None)
    assert api.metric("messages_cancelled_total") == 1
    assert (await api.put(path, json=user)).json["suppressed"] is True
    assert (await api.patch(path, json={"suppressed": False})).json["suppressed"] is True
    await api.delete(path)
    again = await api.create(dateOfBirth="1990-03-02", suppressed=False)
    assert (again["suppressed"], again["nextMessageAt"]) == (True, None)
    assert api.metric("suppressions_total", source="api") == 1
    await api.create(email="new@example.com", suppressed=True)
    assert api.metric("suppressions_total", source="api") == 2
    assert (await api.get(f"/users/{again['id']}")).json == again


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_what_is_wrong_is_named(api: Api, method: str) -> None:
    """All of it at once, each with its pointer, whichever method gives it."""
    user = await api.create()
    wrong = {
        "externalId": "",
        "locale": "english",
        "attributes": {"a": "x" * 5120},
        "anniversaries": {"birthday": "2019-03-04", "work-anniversary": ""},
        "suppressed": "no",
        "nickname": "A",
    }
    body = wrong if method == "PATCH" else RUNBOOK_USER | wrong
    answer = await api.request(method, "/users" if method == "POST" else f"/users/{user['id']}", json=body)
    assert answer.status == 422
    assert set(answer.pointers) == {
        "/externalId",
        "/locale",
        "/attributes",
        "/anniversaries/birthday",
        "/anniversaries/work-anniversary",
        "/suppressed",
        "/nickname",
    }
