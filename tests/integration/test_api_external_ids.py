"""Users by the customer's own ids: created, replaced or left alone by one call that may be repeated."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from tests.support.api import RUNBOOK_USER, Api, message_rows, running_api

PATH = "/users/by-external-id/"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


async def rows(pool: asyncpg.Pool) -> list[tuple[Any, ...]]:
    """Return all that a change could write."""
    users = await pool.fetch("SELECT users.*, xmin, xmax FROM users ORDER BY id")
    changes = await pool.fetch("SELECT * FROM changes ORDER BY id")
    return [tuple(row) for row in (*users, *changes)]


async def test_a_user_is_created_then_left_alone_then_replaced(api: Api, pool: asyncpg.Pool) -> None:
    """The first PUT creates, the same again writes nothing at all, another one replaces and moves the message."""
    body = RUNBOOK_USER | {"dateOfBirth": "1990-03-02", "attributes": {"team": "red", "id": 1}}
    created = await api.put(f"{PATH}crm-1", body)
    assert (created.status, created.json["externalId"]) == (201, "crm-1")
    assert created.headers["Location"] == f"/users/{created.json['id']}"
    before = await rows(pool)
    for same in (body, body | {"externalId": "crm-1"}, body | {"attributes": {"id": 1, "team": "red"}}, created.json):
        again = await api.put(f"{PATH}crm-1", same)
        assert (again.status, again.headers.get("X-Unchanged"), again.json) == (200, "true", created.json)
        assert again.headers["ETag"] == created.headers["ETag"]
    assert await rows(pool) == before
    moved = await api.put(f"{PATH}crm-1", body | {"dateOfBirth": "1990-03-03"})
    assert (moved.status, "X-Unchanged" in moved.headers, moved.json["id"]) == (200, False, created.json["id"])
    assert [status for status, _ in await message_rows(pool, created.json["id"])] == ["cancelled", "scheduled"]


async def test_numbers_that_are_stored_in_another_form_change_nothing(api: Api) -> None:
    """Decimals of PostgreSQL have neither an exponent nor a negative zero. Tag and comparison know it at once."""
    numbers = (
        *("1e15", "1e16", "1.2345678901234567e18", "1.844674407370955e19", "18446744073709551616", "1e20", "1e300"),
        *("-0.0", "-0", "-1e16", "-9.223372036854775e18", "-9223372036854775808.0", "-1e19", "2.50", "1e-7", "5e-324"),
    )
    text = json.dumps(RUNBOOK_USER | {"attributes": {"numbers": ["NUMBERS"]}}).replace('"NUMBERS"', ", ".join(numbers))
    body, as_json = text.encode(), {"Content-Type": "application/json"}
    created = await api.request("PUT", f"{PATH}crm-1", data=body, headers=as_json)
    assert created.status == 201, created.body
    found = await api.get(f"{PATH}crm-1")
    assert (found.body, found.headers["ETag"]) == (created.body, created.headers["ETag"])
    again = await api.request("PUT", f"{PATH}crm-1", data=body, headers=as_json)
    assert (again.status, again.headers.get("X-Unchanged"), again.body) == (200, "true", created.body)
    changed = {"firstName": "Eve"}
    assert (await api.patch(f"{PATH}crm-1", changed, {"If-Match": created.headers["ETag"]})).status == 200


async def test_the_other_methods_work_by_external_id_too(api: Api) -> None:
    """GET, PATCH and DELETE find the user; afterwards the id is unknown, and free."""
    user = (await api.put(f"{PATH}crm-1", RUNBOOK_USER)).json
    assert (await api.get(f"{PATH}crm-1")).json == user
    patched = await api.patch(f"{PATH}crm-1", {"firstName": "Ada"})
    assert (patched.status, patched.json["firstName"]) == (200, "Ada")
    assert (await api.delete(f"{PATH}crm-1")).status == 204
    for answer in (
        await api.get(f"{PATH}crm-1"),
        await api.patch(f"{PATH}crm-1", {}),
        await api.delete(f"{PATH}crm-1"),
    ):
        assert (answer.status, answer.json["code"]) == (404, "unknown_user")
    assert (await api.put(f"{PATH}crm-1", RUNBOOK_USER)).status == 201


@pytest.mark.parametrize("external_id", ["a/b", "a b", "ключ-é", "a.b", "a%2Fb", "messages", "x?y#z", "1" * 200])
async def test_any_external_id_can_stand_in_the_path(api: Api, external_id: str) -> None:
    """Slashes, blanks and letters of any script are percent-encoded."""
    path = PATH + quote(external_id, safe="")
    answer = await api.put(path, RUNBOOK_USER)
    assert (answer.status, answer.json["externalId"]) == (201, external_id)
    assert (await api.get(path)).json == answer.json


async def test_what_cannot_be_an_external_id_is_refused(api: Api) -> None:
    """The body must have the same id or none, and the path one that can be."""
    other = await api.put(f"{PATH}crm-1", RUNBOOK_USER | {"externalId": "crm-2"})
    assert (other.status, other.pointers) == (422, ["/externalId"])
    long = await api.put(f"{PATH}{'1' * 201}", RUNBOOK_USER)
    assert (long.status, long.json["code"], long.json["errors"][0]["parameter"]) == (
        422,
        "invalid_parameter",
        "externalId",
    )
    assert (await api.get(f"{PATH}{'1' * 201}")).status == 404
    assert (await api.put(f"{PATH}crm-1", [])).status == 422
    assert (await api.post(f"{PATH}crm-1", RUNBOOK_USER)).status == 405


async def test_an_address_of_somebody_else_is_a_conflict_that_names_them(api: Api) -> None:
    """Whoever has the address keeps it, with or without an external id; the answer has their id."""
    first = (await api.put(f"{PATH}crm-1", RUNBOOK_USER)).json
    second = (await api.put(f"{PATH}crm-2", RUNBOOK_USER | {"email": "second@example.com"})).json
    for path in ("crm-2", "crm-3"):
        answer = await api.put(f"{PATH}{path}", RUNBOOK_USER)
        assert (answer.status, answer.json["code"], answer.pointers) == (409, "email_taken", ["/email"])
        assert answer.json["existingId"] == first["id"]
    taken = await api.patch(f"/users/{second['id']}", {"externalId": "crm-1"})
    assert (taken.status, taken.json["code"], taken.json["existingId"]) == (409, "external_id_taken", first["id"])
    again = await api.post("/users", RUNBOOK_USER)
    assert (again.status, again.json["existingId"]) == (409, first["id"])


async def test_a_condition_is_checked(api: Api) -> None:
    """If-None-Match: * only creates, If-Match only replaces what was read."""
    only_new = {"If-None-Match": "*"}
    created = await api.put(f"{PATH}crm-1", RUNBOOK_USER, only_new)
    assert created.status == 201
    assert (await api.put(f"{PATH}crm-1", RUNBOOK_USER, only_new)).status == 412
    old = {"If-Match": created.headers["ETag"]}
    assert (await api.put(f"{PATH}crm-1", RUNBOOK_USER | {"firstName": "Ada"}, old)).status == 200
    assert (await api.put(f"{PATH}crm-1", RUNBOOK_USER | {"firstName": "Eve"}, old)).status == 412
    assert (await api.put(f"{PATH}crm-2", RUNBOOK_USER, old)).status == 412


async def test_equal_requests_at_once_make_one_user(api: Api, pool: asyncpg.Pool) -> None:
    """Of a hundred equal PUTs one creates the user, and the others find nothing to change."""
    answers = await asyncio.gather(*(api.put(f"{PATH}crm-1", RUNBOOK_USER) for _ in range(100)))
    assert sorted({answer.status for answer in answers}) == [200, 201]
    assert [answer.status for answer in answers].count(201) == 1
    assert {answer.json["id"] for answer in answers} == {answers[0].json["id"]}
    assert all(answer.headers.get("X-Unchanged") == "true" for answer in answers if answer.status == 200)
    assert await pool.fetchval("SELECT count(*) FROM users") == 1
