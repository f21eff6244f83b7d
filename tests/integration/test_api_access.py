"""Who may use the API, how often, and what is written down about it."""

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
import structlog

from tests.support.api import RUNBOOK_USER, api_keys, running_api

UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"
KEYS = api_keys(rita="read", walter="write", ada="admin")
OPEN_PATHS = ["/health", "/health/detailed", "/ready", "/alive", "/metrics", "/openapi.json", "/docs"]


def bearer(name: str) -> dict[str, str]:
    """Return the header of a client with a key."""
    return {"Authorization": f"Bearer key-of-{name}"}


@contextmanager
def captured_events() -> Iterator[list[MutableMapping[str, Any]]]:
    """Collect what is logged, with its context."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as events:
        yield events


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/users", "read"),
        ("GET", f"/users/{UNKNOWN}", "read"),
        ("GET", f"/users/{UNKNOWN}/messages", "read"),
        ("GET", "/messages", "read"),
        ("GET", "/suppressions", "read"),
        ("DELETE", f"/users/{UNKNOWN}/suppression", "write"),
        ("GET", f"/messages/{UNKNOWN}", "read"),
        ("POST", "/users", "write"),
        ("PUT", f"/users/{UNKNOWN}", "write"),
        ("PATCH", f"/users/{UNKNOWN}", "write"),
        ("DELETE", f"/users/{UNKNOWN}", "write"),
        ("POST", f"/messages/{UNKNOWN}/retry", "admin"),
        ("GET", "/keys", "admin"),
        ("DELETE", "/keys/01234567", "admin"),
        ("GET", f"/users/{UNKNOWN}/data", "read"),
        ("POST", f"/users/{UNKNOWN}/erase", "admin"),
        ("GET", "/changes", "admin"),
    ],
)
async def test_every_resource_needs_a_key_of_its_scope(pool: asyncpg.Pool, method: str, path: str, scope: str) -> None:
    """Without a key 401, with too small a scope 403, with enough of it the request is answered; admin includes all."""
    holders = {"read": "rita", "write": "walter", "admin": "ada"}
    enough = list(holders)[list(holders).index(scope) :]
    async with running_api(pool, api_keys=KEYS) as api:
        nobody = await api.request(method, path, json=RUNBOOK_USER)
        assert nobody.status == 401
        assert nobody.headers["WWW-Authenticate"].startswith("Bearer")
        assert nobody.headers["Content-Type"] == "application/problem+json"
        for held, name in holders.items():
            answer = await api.request(method, path, json=RUNBOOK_USER, headers=bearer(name))
            if held in enough:
                assert answer.status in {200, 201, 404, 409}, (held, answer.body)
            else:
                assert answer.status == 403
                assert scope in answer.json["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer key-of-rita"}, 200),
        ({"Authorization": "bearer  key-of-rita"}, 200),
        ({"X-API-Key": "key-of-rita"}, 200),
        ({"Authorization": "Basic cml0YTp4", "X-API-Key": "key-of-rita"}, 200),
        ({"Authorization": "Bearer wrong", "X-API-Key": "key-of-rita"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer key-of-RITA"}, 401),
        ({"Authorization": "Basic key-of-rita"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": "schlüssel"}, 401),
    ],
)
async def test_a_key_comes_in_either_of_two_headers(pool: asyncpg.Pool, headers: dict[str, str], status: int) -> None:
    """Authorization: Bearer or X-API-Key; the former counts if both are there."""
    async with running_api(pool, api_keys=KEYS) as api:
        assert (await api.get("/users", headers=headers)).status == status


async def test_probes_and_documents_need_no_key(pool: asyncpg.Pool) -> None:
    """What orchestrators, Prometheus and newcomers ask for is open."""
    async with running_api(pool, api_keys=KEYS) as api:
        for path in OPEN_PATHS:
            assert (await api.get(path)).status == 200, path


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:3000", 200),
        ("127.0.0.1", 200),
        ("127.8.9.1:80", 200),
        ("[::1]:3000", 200),
        ("attacker.example", 403),
        ("localhost.attacker.example:3000", 403),
        ("127.0.0.1.attacker.example", 403),
        ("192.0.2.1", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
async def test_without_keys_only_this_machine_is_answered(pool: asyncpg.Pool, host: str, status: int) -> None:
    """A request under another name, as a rebound DNS name of a web page makes a browser send, is refused."""
    async with running_api(pool) as api:
        assert (await api.get("/users", headers={"Host": host})).status == status
        assert (await api.get("/health", headers={"Host": host})).status == 200


async def test_with_keys_any_name_is_answered(pool: asyncpg.Pool) -> None:
    """A key is what counts behind a proxy or a public name."""
    async with running_api(pool, api_keys=KEYS) as api:
        assert (await api.get("/users", headers={"Host": "api.example.com"} | bearer("rita"))).status == 200


async def test_refusals_are_logged_without_the_key(pool: asyncpg.Pool) -> None:
    """auth.failed and auth.forbidden say who and why, and never what the key was."""
    async with running_api(pool, api_keys=KEYS) as api:
        with captured_events() as events:
            await api.get("/users")
            await api.get("/users", headers=bearer("mallory"))
            await api.post("/users", RUNBOOK_USER, headers=bearer("rita"))
    security = [event for event in events if event["event"].startswith("auth.")]
    assert [(event["event"], event.get("reason") or event.get("client")) for event in security] == [
        ("auth.failed", "no key"),
        ("auth.failed", "unknown key"),
        ("auth.forbidden", "rita"),
    ]
    assert all("request_id" in event for event in security)
    assert "key-of" not in str(events)


async def test_a_client_that_asks_too_often_is_told_to_wait(pool: asyncpg.Pool) -> None:
    """Beyond RATE_LIMIT the answer is 429 with Retry-After, until the second is over; probes are never counted."""
    async with running_api(pool, rate_limit="5/s") as api:
        answers = await asyncio.gather(*(api.get("/messages") for _ in range(20)))
        refused = [answer for answer in answers if answer.status == 429]
        assert 5 <= sum(answer.status == 200 for answer in answers) <= 10
        assert refused
        assert refused[0].headers["Content-Type"] == "application/problem+json"
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].headers["RateLimit-Limit"] == "5"
        assert refused[0].headers["RateLimit-Remaining"] == "0"
        assert refused[0].headers["RateLimit-Reset"] == "1"
        probes = await asyncio.gather(*(api.get("/alive") for _ in range(20)))
        assert {answer.status for answer in probes} == {200}
        async with asyncio.timeout(60):
            while (await api.get("/messages")).status != 200:
                pass


async def test_clients_are_counted_apart(pool: asyncpg.Pool) -> None:
    """One client's requests do not use up another's; whoever has no valid key is counted by address."""
    async with running_api(pool, rate_limit="3/s", api_keys=KEYS) as api:
        for name in ("rita", "walter"):
            answers = await asyncio.gather(*(api.get("/messages", headers=bearer(name)) for _ in range(3)))
            assert {answer.status for answer in answers} == {200}
        guesses = await asyncio.gather(*(api.get("/messages", headers=bearer(f"guess-{n}")) for n in range(20)))
        assert {answer.status for answer in guesses} == {401, 429}


async def test_without_a_limit_nobody_waits(pool: asyncpg.Pool) -> None:
    """RATE_LIMIT is off by default."""
    async with running_api(pool) as api:
        answers = await asyncio.gather(*(api.get("/messages") for _ in range(60)))
        assert {answer.status for answer in answers} == {200}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("9f2c-Trace_1.2", True),
        ("01234567-89ab-7def-8123-456789abcdef", True),
        ("x" * 101, False),
        ("with blanks", False),
        ('{"json"}', False),
        ("", False),
    ],
)
async def test_every_answer_has_a_request_id(pool: asyncpg.Pool, given: str, kept: bool) -> None:  # noqa: FBT001
    """A sane X-Request-ID comes back; otherwise one is made. Errors have it as well."""
    async with running_api(pool) as api:
        for path in ("/alive", "/users", "/nowhere"):
            answer = await api.get(path, headers={"X-Request-ID": given})
            assert (answer.headers["X-Request-ID"] == given) is kept
            assert answer.headers["X-Request-ID"]


async def test_a_request_is_one_line_in_the_log(pool: asyncpg.Pool) -> None:
    """Changes and refusals are info, failures warning, reading debug; route, id and status, and no user data.

    Why a request failed is a line of its own, an error.
    """
    async with running_api(pool) as api:
        with captured_events() as events:
            user = await api.create(firstName="Zebulon")
            await api.get(f"/users/{user['id']}")
            await api.get("/users/zebulon@example.com", headers={"X-Request-ID": "mine"})
            await pool.execute("ALTER TABLE users RENAME TO people")
            await api.get("/users")
    lines = [event for event in events if event["event"] == "http.request"]
    assert [(line["log_level"], line["method"], line["path"], line["status"]) for line in lines] == [
        ("info", "POST", "/users", 201),
        ("debug", "GET", "/users/{id}", 200),
        ("info", "GET", "/users/{id}", 404),
        ("warning", "GET", "/users", 503),
    ]
    [cause] = [event for event in events if event["event"] == "http.unavailable"]
    assert (cause["log_level"], cause["resource"]) == ("error", "database")
    assert cause["request_id"] == lines[3]["request_id"]
    assert lines[0]["subject"] == lines[1]["subject"] == user["id"]
    assert lines[2]["request_id"] == "mine"
    assert lines[0]["client"] == "127.0.0.1"
    assert lines[0]["duration_seconds"] > 0
    for secret in ("Zebulon", "example.com", "1990"):
        assert secret.lower() not in str(events).lower()


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({}, "127.0.0.1"),
        ({"X-Forwarded-For": "203.0.113.5"}, "203.0.113.5"),
        ({"X-Forwarded-For": "198.51.100.1, 203.0.113.5"}, "203.0.113.5"),
        ({"X-Forwarded-For": "198.51.100.1, 203.0.113.5, 10.1.2.3"}, "203.0.113.5"),
        ({"X-Forwarded-For": "203.0.113.5:4711"}, "203.0.113.5"),
        ({"X-Forwarded-For": "10.1.2.3"}, "10.1.2.3"),
        ({"Forwarded": 'for=198.51.100.1, for="[2001:db8::7]:4711";proto=https;by=10.0.0.1'}, "2001:db8::7"),
        ({"Forwarded": "proto=https;For=203.0.113.5"}, "203.0.113.5"),
        ({"Forwarded": "for=203.0.113.5", "X-Forwarded-For": "203.0.113.5"}, "203.0.113.5"),
        ({"Forwarded": "for=127.0.0.1", "X-Forwarded-For": "203.0.113.5"}, "unknown"),
        ({"Forwarded": "for=_hidden"}, "unknown"),
        ({"Forwarded": "proto=https"}, "unknown"),
        ({"X-Forwarded-For": "nonsense"}, "unknown"),
        ({"X-Forwarded-For": "127.0.0.1, "}, "unknown"),
    ],
)
async def test_a_trusted_proxy_says_who_the_client_is(pool: asyncpg.Pool, headers: dict[str, str], client: str) -> None:
    """The log has the last address that is not a trusted proxy's; what nobody can understand is nobody's address."""
    async with running_api(pool, trusted_proxies="127.0.0.0/8,10.0.0.0/8") as api:
        with captured_events() as events:
            answer = await api.get("/users/1", headers=headers)
    [line] = [event for event in events if event["event"] == "http.request"]
    assert line["client"] == client
    # Without keys the API is for this machine only, whatever the name that the proxy asked it by.
    assert answer.status == (404 if client == "127.0.0.1" else 403)


async def test_without_trust_nobody_says_who_the_client_is(pool: asyncpg.Pool) -> None:
    """A header that any client can write changes nothing."""
    forged = {"X-Forwarded-For": "203.0.113.5", "Forwarded": "for=203.0.113.5"}
    both: list[dict[str, Any]] = [{}, {"trusted_proxies": "10.0.0.0/8"}]
    for settings in both:
        async with running_api(pool, **settings) as api:
            with captured_events() as events:
                await api.get("/users/1", headers=forged)
        [line] = [event for event in events if event["event"] == "http.request"]
        assert line["client"] == "127.0.0.1"


async def test_clients_behind_a_trusted_proxy_are_counted_apart(pool: asyncpg.Pool) -> None:
    """RATE_LIMIT is for a client and not for the proxy that all of them come through."""
    async with running_api(pool, rate_limit="2/s", api_keys=KEYS, trusted_proxies="127.0.0.1") as api:
        many = [api.get("/messages", headers={"X-Forwarded-For": f"203.0.113.{n}"}) for n in range(20)]
        assert {answer.status for answer in await asyncio.gather(*many)} == {401}
        same = [api.get("/messages", headers={"X-Forwarded-For": f"198.51.100.{n}, 203.0.113.99"}) for n in range(20)]
        assert 429 in {answer.status for answer in await asyncio.gather(*same)}
