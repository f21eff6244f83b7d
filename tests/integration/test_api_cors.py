"""Pages of other origins: only those that CORS_ORIGINS names may call the API, and read what they need."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.api import Api, api_keys, running_api

APP = "https://app.example.com"
LOCAL = "http://localhost:5173"
KEY = {"Authorization": "Bearer key-of-ada"}
PREFLIGHT = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,if-match"}


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """An API that two origins may use, with a key."""
    async with running_api(pool, cors_origins=f"{APP},{LOCAL}", api_keys=api_keys(ada="write")) as api:
        yield api


def words(listed: str) -> set[str]:
    """Return the items of a header that is a list."""
    return {item.strip().lower() for item in listed.split(",")}


@pytest.mark.parametrize("origin", [APP, LOCAL])
async def test_a_page_that_is_named_may_ask_before_it_calls(api: Api, origin: str) -> None:
    """A preflight needs no key; its answer allows all methods and the headers of clients, but no cookies."""
    for path in ("/users", "/users/01234567-89ab-7def-8123-456789abcdef", "/messages/retry"):
        answer = await api.request("OPTIONS", path, headers=PREFLIGHT | {"Origin": origin})
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Vary"] == "Origin"
        assert words(answer.headers["Access-Control-Allow-Methods"]) >= {"get", "post", "put", "patch", "delete"}
        needed = {"authorization", "x-api-key", "content-type", "idempotency-key", "if-match", "if-none-match"}
        assert words(answer.headers["Access-Control-Allow-Headers"]) >= needed
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert answer.headers["X-Request-ID"]


async def test_a_page_that_is_named_may_read_answers(api: Api) -> None:
    """Also errors, and the headers that clients work with."""
    for headers, status in ((KEY, 200), ({}, 401)):
        answer = await api.get("/users", headers | {"Origin": APP})
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == APP
        exposed = {"etag", "link", "location", "retry-after", "ratelimit", "x-request-id", "idempotent-replayed"}
        assert words(answer.headers["Access-Control-Expose-Headers"]) >= exposed
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", [f"{APP}.evil.example", "https://app.example.co", f"{APP}:8443", "null", "", "*"])
async def test_any_other_page_may_neither_ask_nor_read(api: Api, origin: str) -> None:
    """The origin must be exactly one of the list. Caches are told that answers differ by it."""
    asked = await api.request("OPTIONS", "/users", headers=PREFLIGHT | {"Origin": origin})
    assert asked.status == 405
    read = await api.get("/users", KEY | {"Origin": origin})
    assert read.status == 200
    for answer in (asked, read):
        assert not [name for name in answer.headers if name.startswith("Access-Control-")]
        assert answer.headers["Vary"] == "Origin"


async def test_by_default_no_page_may(pool: asyncpg.Pool) -> None:
    """Without CORS_ORIGINS no answer has a header of CORS."""
    async with running_api(pool) as api:
        asked = await api.request("OPTIONS", "/users", headers=PREFLIGHT | {"Origin": "http://localhost"})
        assert asked.status == 405
        for answer in (asked, await api.get("/users", {"Origin": "http://localhost"})):
            assert not [name for name in answer.headers if name.startswith("Access-Control-")]
