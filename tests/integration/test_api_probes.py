"""Probes and metrics, with dependencies that are there, away, or silent."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from birthday.errors import UnavailableError
from birthday.operations.readiness import Check
from tests.support.api import RUNBOOK_USER, Api, api_keys, hang, running_api


async def fine() -> None:
    """Do nothing, as a check of a dependency that is there."""


async def away() -> None:
    """Fail as a check of a dependency that is not there."""
    raise UnavailableError("queue", "amqp://broker.example:5672 refused the connection")


async def broken() -> None:
    """Fail in a way that no check should."""
    raise RuntimeError("postgresql://root:secret@db.example/birthday")


@pytest.fixture
async def nowhere() -> AsyncIterator[asyncpg.Pool]:
    """A pool on a port where nobody listens."""
    with socket.socket() as taken:
        # Bound and never listened on: nobody else can take the port, and connections are refused.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with asyncpg.create_pool(f"postgresql://birthday@127.0.0.1:{port}/birthday", min_size=0) as pool:
            yield pool


@pytest.mark.parametrize(
    ("checks", "channel", "health", "status", "ready"),
    [
        ({"database": fine, "queue": fine}, fine, "healthy", 200, 200),
        ({"database": fine, "queue": away}, fine, "degraded", 200, 503),
        ({"database": fine, "queue": fine}, away, "degraded", 200, 200),
        ({"database": away, "queue": fine}, fine, "unhealthy", 503, 503),
        ({"database": fine, "migrations": away, "queue": fine}, fine, "unhealthy", 503, 503),
        ({"database": broken, "queue": hang}, hang, "unhealthy", 503, 503),
    ],
)
async def test_health_is_the_sum_of_the_dependencies(
    pool: asyncpg.Pool, checks: dict[str, Check], channel: Check, health: str, status: int, ready: int
) -> None:
    """Without the database nothing works; without queue or channel users are served; the channel is no need."""
    async with running_api(pool, checks=checks, channel=channel) as api:
        brief, detailed, readiness = await asyncio.gather(
            api.get("/health"), api.get("/health/detailed"), api.get("/ready")
        )
        assert (brief.status, brief.json["status"]) == (status, health)
        assert set(brief.json) == {"status", "version", "roles", "paused", "checks"}
        assert set(brief.json["checks"]) == {*checks, "channel"}
        assert brief.json["roles"] == ["api", "scheduler", "worker"]
        assert (detailed.status, detailed.json["status"]) == (status, health)
        assert readiness.status == ready
        assert set(readiness.json["checks"]) == set(checks)
        assert (await api.get("/alive")).status == 200


async def test_details_say_why_and_how_long(pool: asyncpg.Pool) -> None:
    """Each dependency has its latency and, if it fails, a reason, which never is the text of a library's exception."""
    async with running_api(pool, checks={"database": broken, "queue": away}, api_keys=api_keys(rita="read")) as api:
        answer = await api.get("/health/detailed", headers={"X-API-Key": "key-of-rita"})
        details = answer.json["checks"]
        assert details["queue"]["status"] == "unhealthy"
        assert details["queue"]["reason"] == "amqp://broker.example:5672 refused the connection"
        assert details["queue"]["latencySeconds"] >= 0
        assert details["database"]["reason"] == "RuntimeError"
        assert b"secret" not in answer.body


@pytest.mark.parametrize("settings", [{}, {"api_keys": api_keys(rita="read")}])
async def test_who_has_no_key_is_told_no_names(pool: asyncpg.Pool, settings: dict[str, Any]) -> None:
    """Without a key a reason says why, and names no host, user, database or path."""
    reasons = [
        "amqp://svc:secret@mq.internal:5672/orders: cannot connect: [Errno 111] Connect call failed ('10.1.2.3', 5672)",
        'the database cannot be used: password authentication failed for user "svc"',
        'the database cannot be used: database "orders" does not exist on dbhost:5432',
        "http://letters.internal/send: no answer within 2.5 s",
        "connection to dbhost as svc in /var/run/postgresql failed: refused: 401 from [2001:db8::7]:443",
    ]

    async def fail() -> None:
        raise UnavailableError("database", "; ".join(reasons))

    urls: dict[str, Any] = {"database_url": "postgresql://svc:secret@dbhost/orders"}
    async with running_api(pool, checks={"database": fail}, **urls, **settings) as api:
        for path in ("/health", "/health/detailed", "/health/db", "/ready"):
            text = (await api.get(path, headers={"X-API-Key": "key-of-nobody"})).body.decode()
            for name in ("svc", "secret", "internal", "orders", "dbhost", "10.1.2.3", "2001:db8", "letters", "/var"):
                assert name not in text
        reason = (await api.get("/health/db")).json["reason"]
    for why in ("password authentication failed", "does not exist", "no answer within 2.5 s", "refused: 401", "111"):
        assert why in reason


async def test_a_page_of_metrics_is_made_once_a_second(pool: asyncpg.Pool) -> None:
    """Whoever asks for it again and again costs no more than Prometheus; after a second it is made anew."""
    async with running_api(pool) as api:
        first = await api.get("/metrics")
        await api.create()
        pages = await asyncio.gather(*(api.get("/metrics") for _ in range(20)))
        assert {page.body for page in pages} == {first.body}
        assert (await api.get("/metrics", headers={"Accept": "application/openmetrics-text"})).body != first.body
        async with asyncio.timeout(60):
            while b"users_created_total 1.0" not in (await api.get("/metrics")).body:
                await asyncio.sleep(0)


async def test_database_and_queue_have_probes_of_their_own(pool: asyncpg.Pool) -> None:
    """/health/db and /health/queue are 200 or 503 by that dependency alone."""
    async with running_api(pool, checks={"database": fine, "queue": away}) as api:
        database, queue = await api.get("/health/db"), await api.get("/health/queue")
        assert (database.status, database.json["status"], database.json["reason"]) == (200, "healthy", None)
        assert (queue.status, queue.json["status"]) == (503, "unhealthy")
    async with running_api(pool, checks={"database": fine}) as api:
        assert (await api.get("/health/queue")).status == 404


async def test_real_dependencies_are_healthy(pool: asyncpg.Pool) -> None:
    """With a database and a queue that work, everything is fine."""
    async with running_api(pool) as api:
        assert (await api.get("/health")).json["status"] == "healthy"
        assert (await api.get("/ready")).json == {
            "status": "ready",
            "draining": False,
            "checks": {"database": "healthy", "queue": "healthy"},
        }


async def test_a_draining_process_is_not_ready(pool: asyncpg.Pool) -> None:
    """On its way out a process is not ready, still answers, and asks its clients to connect elsewhere."""
    async with running_api(pool) as api:
        api.context.readiness.draining = True
        answer = await api.get("/ready")
        assert (answer.status, answer.json["draining"]) == (503, True)
        assert answer.headers["Connection"] == "close"
        assert (await api.get("/alive")).status == 200
        await api.create()


async def test_a_dependency_that_hangs_is_given_up_on(pool: asyncpg.Pool) -> None:
    """A probe takes no longer than a little over two seconds, however many dependencies are silent."""
    async with running_api(pool, checks={"database": hang, "queue": hang}, channel=hang) as api:
        async with asyncio.timeout(4):
            answer = await api.get("/health/detailed")
        assert answer.status == 503
        assert {check["reason"] for check in answer.json["checks"].values()} == {"no answer within 2 s"}


async def test_many_probes_are_one_check(pool: asyncpg.Pool) -> None:
    """Concurrent probes share one check, and what it found is reused for a second at most."""
    started = 0
    release = asyncio.Event()

    async def counted() -> None:
        nonlocal started
        started += 1
        await release.wait()

    async with running_api(pool, checks={"database": counted}) as api:
        probes = [asyncio.create_task(api.get("/ready")) for _ in range(20)]
        async with asyncio.timeout(60):
            while api.metric("api_active_requests") < 20:
                await asyncio.sleep(0)
            release.set()
            assert {answer.status for answer in await asyncio.gather(*probes)} == {200}
            assert started == 1
            assert (await api.get("/ready")).status == 200
            while started == 1:
                await api.get("/ready")


async def test_a_dependency_that_comes_back_is_noticed(pool: asyncpg.Pool) -> None:
    """A failed check is not remembered for longer than a second."""
    answers = [away, away, fine]

    async def recovering() -> None:
        await (answers.pop(0) if len(answers) > 1 else answers[0])()

    async with running_api(pool, checks={"database": fine, "queue": recovering}) as api:
        assert (await api.get("/ready")).status == 503
        async with asyncio.timeout(60):
            while (await api.get("/ready")).status != 200:
                pass


async def test_without_a_database_everything_says_so(nowhere: asyncpg.Pool) -> None:
    """Requests are 503 problems that say when to come back, the process is not ready, and it is alive."""
    async with running_api(nowhere) as api:
        create = await api.post("/users", RUNBOOK_USER)
        listing = await api.get("/users")
        for answer in (create, listing):
            assert answer.status == 503
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.json["detail"] == "the database cannot be used now"
        assert (await api.get("/ready")).status == 503
        health = await api.get("/health")
        assert (health.status, health.json["status"]) == (503, "unhealthy")
        assert (await api.get("/health/db")).status == 503
        assert (await api.get("/alive")).status == 200
        assert (await api.get("/metrics")).status == 200
        assert api.metric("users_created_total") == 0


async def test_a_pool_that_is_used_up_is_unavailable(database_url: str) -> None:
    """Who waits too long for a connection gets 503 and not an endless wait."""
    async with asyncpg.create_pool(database_url, min_size=0, max_size=1) as pool, running_api(pool) as api:
        async with pool.acquire():
            answer = await api.get("/users")
        assert answer.status == 503
        assert (await api.get("/users")).status == 200


@pytest.mark.slow
async def test_a_statement_that_takes_too_long_is_given_up(pool: asyncpg.Pool) -> None:
    """Who waits for a row that another transaction holds gets 503 in the end, and the connection is good again."""
    async with running_api(pool) as api:
        user = await api.create()
        path = f"/users/{user['id']}"
        async with pool.acquire() as other, other.transaction():
            await other.execute("SELECT 1 FROM users FOR UPDATE")
            answer = await api.patch(path, {"firstName": "Ada"})
        assert answer.status == 503
        assert (await api.get(path)).json == user
        assert (await api.patch(path, {"firstName": "Ada"})).status == 200


async def test_a_process_without_the_role_serves_probes_only(pool: asyncpg.Pool) -> None:
    """A worker or scheduler can be probed and scraped; users and messages are not to be had from it."""
    async with running_api(pool, role="worker,scheduler") as api:
        for path in ("/health", "/health/detailed", "/health/db", "/health/queue", "/ready", "/alive", "/metrics"):
            assert (await api.get(path)).status == 200
        for path in ("/users", "/messages", "/openapi.json", "/docs"):
            assert (await api.get(path)).status == 404
        assert (await api.get("/health")).json["roles"] == ["scheduler", "worker"]


async def test_metrics_are_prometheus_text(pool: asyncpg.Pool) -> None:
    """Requests are counted and timed by method, route template and status; the unknown share one label."""
    async with running_api(pool) as api:
        user = await api.create()
        await api.get(f"/users/{user['id']}")
        await api.get("/users/1")
        await api.get("/wp-login.php")
        await api.get("/.env")
        await api.request("PROPFIND", "/users")
        answer = await api.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))

    def requests(method: str, path: str, status: str) -> str:
        return lines[f'birthday_scheduler_api_requests_total{{method="{method}",path="{path}",status="{status}"}}']

    assert requests("POST", "/users", "201") == "1.0"
    assert requests("GET", "/users/{id}", "200") == "1.0"
    assert requests("GET", "/users/{id}", "404") == "1.0"
    assert requests("GET", "unknown", "404") == "2.0"
    assert requests("OTHER", "unknown", "405") == "1.0"
    assert lines['birthday_scheduler_api_response_time_count{method="GET",path="/users/{id}"}'] == "2.0"
    assert lines["birthday_scheduler_api_active_requests"] == "0.0"


@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics-text", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"],
)
async def test_metrics_are_openmetrics_for_whoever_asks(pool: asyncpg.Pool, accept: str) -> None:
    """The format is chosen by Accept."""
    async with running_api(pool) as api:
        answer = await api.get("/metrics", headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=abc", "*/*;q=x", "", "text/plain;version=!"])
async def test_metrics_have_an_answer_for_any_accept(api_or_none: Api, accept: str) -> None:
    """Nonsense in Accept is no error."""
    assert (await api_or_none.get("/metrics", headers={"Accept": accept})).status == 200


@pytest.fixture
async def api_or_none(nowhere: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API without a database, which metrics do not need."""
    async with running_api(nowhere) as api:
        yield api
