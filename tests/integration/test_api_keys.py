"""The resource /keys."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from tests.support.api import Api, api_keys, running_api

ADMIN = {"X-API-Key": "key-of-ada"}


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API with a key of API_KEYS for each scope."""
    async with running_api(pool, api_keys=api_keys(ada="admin", walter="write")) as api:
        yield api


async def test_a_key_is_made_rotated_and_revoked(api: Api) -> None:
    """Each answer tells what became of it; only the answer that made a key has it."""
    made = await api.post("/keys", {"name": "shop", "scope": "admin", "expiresAt": "2026-05-30T09:00:00Z"}, ADMIN)
    assert made.status == 201
    secret = made.json.pop("key")
    assert made.json == {
        "id": secret.split("_")[1],
        "name": "shop",
        "scope": "admin",
        "state": "active",
        "createdAt": "2026-03-01T09:00:00Z",
        "createdBy": "api:ada",
        "expiresAt": "2026-05-30T09:00:00Z",
        "replacedAt": None,
        "revokedAt": None,
        "lastUsedAt": None,
    }
    rotated = await api.post(f"/keys/{made.json['id']}/rotate", {"overlapSeconds": 3600}, ADMIN)
    assert (rotated.status, rotated.json["name"], rotated.json["expiresAt"]) == (201, "shop", "2026-05-30T09:00:00Z")
    listed = (await api.get("/keys", ADMIN)).json["keys"]
    assert {key["id"]: (key["state"], key["replacedAt"]) for key in listed} == {
        made.json["id"]: ("replaced", "2026-03-01T10:00:00Z"),
        rotated.json["id"]: ("active", None),
    }
    assert "bday_" not in str(listed)
    await api.context.keys.refresh()
    own = {"Authorization": f"Bearer {secret}"}
    other = await api.delete(f"/keys/{rotated.json['id']}", own)
    assert (other.status, other.json["state"], other.json["isOwn"]) == (200, "revoked", False)
    itself = await api.delete(f"/keys/{made.json['id']}", own)
    assert (itself.status, itself.json["isOwn"]) == (200, True)
    await api.context.keys.refresh()
    assert (await api.get("/keys", own)).json["code"] == "ended_key"
    again = await api.delete(f"/keys/{made.json['id']}", ADMIN)
    assert (again.status, again.json["code"]) == (404, "unknown_key_id")


@pytest.mark.parametrize(
    "expires_at", ["9999-12-31", "9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59Z"]
)
async def test_a_key_that_ends_with_the_last_year_works_and_can_be_rotated(api: Api, expires_at: str) -> None:
    """Some clients write "never" like this. A new key does not end a lifetime from now, but with the last year too."""
    key = await api.post("/keys", {"name": "shop", "scope": "read", "expiresAt": expires_at}, ADMIN)
    assert key.status == 201
    for _ in range(2):
        await api.context.keys.refresh()
        assert (await api.get("/users", {"X-API-Key": key.json["key"]})).status == 200
        api.clock.advance(timedelta(days=400))
        key = await api.post(f"/keys/{key.json['id']}/rotate", {}, ADMIN)
        assert (key.status, key.json["expiresAt"]) == (201, "9999-12-31T23:59:59Z")


async def test_the_list_has_pages_and_may_have_keys_that_have_ended(api: Api) -> None:
    """Each key is on one page, the oldest first; revoked, replaced and expired ones only with all=true."""
    for number in range(5):
        expires = {"expiresAt": "2026-03-01T09:01:00Z"} if number == 1 else {}
        made = await api.post("/keys", {"name": f"shop{number}", "scope": "read"} | expires, ADMIN)
        if number == 2:
            await api.delete(f"/keys/{made.json['id']}", ADMIN)
        if number == 3:
            await api.post(f"/keys/{made.json['id']}/rotate", {"overlapSeconds": 60}, ADMIN)
        api.clock.advance(timedelta(seconds=number % 2))
    assert await names(api, "/keys?limit=2") == ["shop0", "shop1", "shop3", "shop3", "shop4"]
    api.clock.advance(timedelta(minutes=1))
    assert await names(api, "/keys?limit=2") == ["shop0", "shop3", "shop4"]
    assert await names(api, "/keys?limit=2&all=true") == ["shop0", "shop1", "shop2", "shop3", "shop3", "shop4"]
    every = (await api.get("/keys?all=true", ADMIN)).json["keys"]
    assert sorted((key["name"], key["state"]) for key in every) == [
        ("shop0", "active"),
        ("shop1", "ended"),
        ("shop2", "revoked"),
        ("shop3", "active"),
        ("shop3", "ended"),
        ("shop4", "active"),
    ]


async def names(api: Api, path: str) -> list[str]:
    """Return the names of a list of keys, read by its links; those made in the same second come in any order."""
    found: list[str] = []
    while path:
        answer = await api.get(path, ADMIN)
        found += [key["name"] for key in answer.json["keys"]]
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    return sorted(found)


async def test_a_repeated_request_makes_no_second_key_and_shows_none(api: Api, pool: asyncpg.Pool) -> None:
    """The answer to a repeat lacks the key, because nothing that could be sent is ever stored."""
    headers = ADMIN | {"Idempotency-Key": "once"}
    first, second = [await api.post("/keys", {"name": "shop", "scope": "read"}, headers) for _ in range(2)]
    assert (first.status, second.status) == (201, 201)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.json == first.json | {"key": None}
    assert await pool.fetchval("SELECT count(*) FROM api_keys") == 1
    body = await pool.fetchval("SELECT body FROM idempotency_keys")
    assert first.json["id"].encode() in body
    assert first.json["key"].encode() not in body


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scope": "read"}, "/name"),
        ({"name": "1shop", "scope": "read"}, "/name"),
        ({"name": "shop", "scope": "root"}, "/scope"),
        ({"name": "shop", "scope": "read", "expiresAt": "2026-03-01T09:00:00Z"}, "/expiresAt"),
        ({"name": "shop", "scope": "read", "expiresAt": 5}, "/expiresAt"),
        ({"name": "shop", "scope": "read", "key": "mine"}, "/key"),
    ],
)
async def test_what_is_wrong_is_named(api: Api, body: dict[str, object], pointer: str) -> None:
    """With what is accepted."""
    answer = await api.post("/keys", body, ADMIN)
    assert (answer.status, answer.pointers) == (422, [pointer])


async def test_names_are_for_one_client(api: Api) -> None:
    """Also those of API_KEYS."""
    assert (await api.post("/keys", {"name": "shop", "scope": "read"}, ADMIN)).status == 201
    for name in ("shop", "walter"):
        answer = await api.post("/keys", {"name": name, "scope": "read"}, ADMIN)
        assert (answer.status, answer.pointers) == (409, ["/name"])
    assert (await api.post("/keys/walter/rotate", {}, ADMIN)).status == 404


async def test_only_admins_make_keys_and_nobody_without_one(api: Api, pool: asyncpg.Pool) -> None:
    """Where there is no key, who reaches the port cannot lock others out: a command makes the first one."""
    body = {"name": "shop", "scope": "read"}
    assert (await api.post("/keys", body, {"X-API-Key": "key-of-walter"})).status == 403
    async with running_api(pool) as open_api:
        refused = await open_api.post("/keys", body)
        assert refused.status == 403
        assert "birthday keys create" in refused.json["detail"]
        assert (await open_api.get("/keys")).json == {"keys": [], "nextCursor": None}
