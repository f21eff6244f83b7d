"""What operators should know although a process works: silent processes, limits of the database, failing checks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
import structlog

from birthday.errors import UnavailableError
from birthday.operations.heartbeats import Heartbeats
from birthday.operations.notices import Notices, limit_notices, silent_notices
from birthday.operations.readiness import DATABASE, QUEUE, Readiness
from birthday.store.pool import make_pool
from birthday.store.processes import Process, Seen, report
from birthday.store.statistics import Limits, read_limits
from birthday.telemetry.metrics import Metrics
from tests.support.api import running_api
from tests.support.clock import ManualClock
from tests.support.product import eventually
from tests.support.program import run

STARTED = datetime(2026, 11, 29, 9, tzinfo=UTC)
WORKER = Process(uuid4(), "web-1", 4711, "worker", "1.2.3", "c0ffee", "2026c", {}, STARTED)


async def test_a_process_that_is_silent_is_told_by_the_others(pool: asyncpg.Pool) -> None:
    """In /health/detailed of each, and once in its log; host names only to clients with a key. Over when it reports."""
    other = replace(WORKER, id=uuid4(), host="web-2")
    async with running_api(pool) as api, pool.acquire() as connection:
        heartbeats = Heartbeats(pool, other, None, api.context.notices, Metrics(), ManualClock())
        await report(connection, WORKER)
        await heartbeats.beat()
        assert (await api.get("/health/detailed")).json["notices"] == []
        await connection.execute("UPDATE processes SET seen_at = seen_at - interval '90 s' WHERE id = $1", WORKER.id)
        with structlog.testing.capture_logs() as events:
            await heartbeats.beat()
            await heartbeats.beat()
            health = (await api.get("/health/detailed")).json
            await report(connection, WORKER)
            await heartbeats.beat()
        [notice] = health["notices"]
        assert 'worker on "***", pid 4711, has not reported for 90 s' in notice
        assert health["status"] == "healthy"
        told = [event["event"] for event in events if event["event"].startswith("health.")]
        assert told == ["health.notice", "health.notice_over"]
        assert (await api.get("/health/detailed")).json["notices"] == []


def test_a_process_with_a_successor_is_not_told_of() -> None:
    """One that was started on its host after its last report: it was killed, and nobody needs to look for it."""
    now = STARTED + timedelta(minutes=5)

    def told(seconds_ago: float, **changes: object) -> int:
        other = replace(WORKER, id=uuid4(), **changes)  # type: ignore[arg-type] # fields of Process
        return len(silent_notices([Seen(WORKER, 40), Seen(other, seconds_ago)], now))

    after, before = now - timedelta(seconds=30), now - timedelta(seconds=50)
    assert told(2, started_at=after) == 0
    assert told(2, started_at=before) == 1
    assert told(2, started_at=after, host="web-2") == 1
    assert told(2, started_at=after, roles="scheduler") == 1
    assert told(20, started_at=after) == 2


@asynccontextmanager
async def limited(database_url: str, pool: asyncpg.Pool) -> AsyncIterator[None]:
    """Let somebody limit the statements of this database to a time that is too short for ours."""
    name = database_url.rpartition("/")[2]
    await pool.execute(f"ALTER DATABASE {name} SET statement_timeout = '400ms'")
    yield
    await pool.execute(f"ALTER DATABASE {name} RESET statement_timeout")


async def told_limits(pool: asyncpg.Pool) -> dict[str, str]:
    """Return the notices of the limits that a session sees."""
    async with pool.acquire() as connection:
        return limit_notices(await read_limits(connection))


async def test_a_statement_timeout_that_somebody_has_set_is_told_and_cancels_nothing(
    pool: asyncpg.Pool, database_url: str
) -> None:
    """A new session of the program has its own limits only. An old one sees the setting all the same; so does check."""
    async with limited(database_url, pool):
        async with make_pool(database_url, None, min_size=1, max_size=1) as ours:
            await ours.fetchval("SELECT pg_sleep(0.5)")
            for some in (ours, pool):
                told = await told_limits(some)
                assert told["statement_timeout"].startswith("statement_timeout = 400ms is set")
                assert "do without it" in told["statement_timeout"]
        async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as obeying:
            assert "are cancelled" in (await told_limits(obeying))["statement_timeout"]
        checked = await run("check", DATABASE_URL=database_url, CHANNEL="console")
    assert checked.status == 0
    [line] = [line for line in checked.out.splitlines() if line.startswith("limits ")]
    assert "statement_timeout = 400ms" in line
    assert await told_limits(pool) == {}


def test_connections_that_are_used_up_are_told() -> None:
    """As soon as only those are left that the server keeps for superusers."""
    assert limit_notices(Limits(96, 100, 3, {}, ())) == {}
    [notice] = limit_notices(Limits(97, 100, 3, {}, ())).values()
    assert "max_connections = 100" in notice


async def test_notices_end_when_the_database_is_away(database_url: str) -> None:
    """They may be over, and the check of the database says what is wrong."""
    notices = Notices()
    notices.update({"max_connections": "all are in use"})
    pool = await asyncpg.create_pool(database_url, min_size=0)
    await pool.close()
    beating = asyncio.create_task(Heartbeats(pool, WORKER, None, notices, Metrics(), ManualClock()).run())

    async def are_over() -> bool:
        return not notices.texts

    await eventually(are_over, "there are no notices")
    beating.cancel()
    await asyncio.wait({beating})


@pytest.mark.parametrize(
    ("patience", "told"),
    [(0, [("check.failed", "database", "the disk is full"), ("check.passed_again", "database", None)]), (60, [])],
)
async def test_a_check_that_goes_on_failing_is_logged_once_and_when_it_is_over(
    patience: float, told: list[tuple[str, str, str | None]]
) -> None:
    """Not if it fails for a moment, as some do while a process starts."""
    reason: str | None = "the disk is full"

    async def check() -> None:
        if reason is not None:
            raise UnavailableError("database", reason)

    async def fine() -> None:
        """Succeed."""

    readiness = Readiness({QUEUE: fine}, own={DATABASE: check}, patience=patience)
    with structlog.testing.capture_logs() as events:
        await readiness.check_needed()
        await readiness.check_all()
        reason = None
        await readiness.check_needed()
        await readiness.check_needed()
    assert [(event["event"], event["check"], event.get("reason")) for event in events] == told
