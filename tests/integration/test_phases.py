"""The phase of a message follows its status, and so a claim needs no index."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.core.message import Status
from birthday.store.claims import claim
from birthday.store.dispatching import mark_queued
from birthday.store.settling import Settlement, settle
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.phases import INSERTION, PHASES
from tests.support.product import Product, parse

NOW = parse("2027-03-01T09:00:00Z")
COUNT = 10


@pytest.fixture
async def session(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Return a pool with one session: PostgreSQL counts by session, and adds up when the session says so."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        yield pool


def test_each_status_has_a_phase() -> None:
    """The tests below know all of them."""
    assert set(PHASES) == set(Status)


@pytest.mark.parametrize("status", PHASES)
async def test_whoever_writes_a_status_the_phase_follows(pool: asyncpg.Pool, status: str) -> None:
    """At an insertion, and at an update without a phase; what is in flight gets the instant that it is found by."""
    await pool.execute(INSERTION, status, NOW)
    for before in PHASES:
        await pool.execute(INSERTION, before, NOW)
    expected = [(PHASES[status], NOW if PHASES[status] == "in_flight" else None)]
    for change in (
        "status = $1, queued_at = NULL",
        "phase = 'delivered', status = $1",
        "queued_at = NULL, status = $1",
    ):
        await pool.execute(f"UPDATE message_logs SET {change}", status)  # noqa: S608 - one of three
        rows = await pool.fetch("SELECT DISTINCT phase, queued_at FROM message_logs")
        assert [tuple(row) for row in rows] == expected, change


async def test_a_claim_touches_no_index(session: asyncpg.Pool) -> None:
    """Each claim is a HOT update: the version of the row that it writes stands on the same page, and in no index.

    The statements that take a message from planned to delivered set the phase themselves.
    """
    product = Product(session, PostgresBroker(session), ManualClock(NOW), Metrics())
    for _ in range(COUNT):
        await product.create(date(1990, 3, 1))
    ids = [UUID(bytes=row["id"].bytes) for row in await session.fetch("SELECT id FROM message_logs")]
    await session.execute("ALTER TABLE message_logs DISABLE TRIGGER follow_status")
    await mark_queued(session, ids, NOW)
    assert await _phases(session) == {"in_flight": COUNT}
    before = await _hot_updates(session)
    claims = await claim(session, ids, (), NOW, parse("2027-02-27T09:00:00Z"), timedelta(minutes=1))
    assert await _hot_updates(session) - before == COUNT
    assert await _phases(session) == {"in_flight": COUNT}
    outcomes = [Settlement(one.id, one.lease_until, Status.DELIVERED, NOW, NOW, None, counted=True) for one in claims]
    assert len(await settle(session, outcomes)) == COUNT
    assert await _phases(session) == {"delivered": COUNT}


async def _phases(pool: asyncpg.Pool) -> dict[str, int]:
    rows = await pool.fetch("SELECT phase, count(*) FROM message_logs GROUP BY phase")
    return dict(map(tuple, rows))


async def _hot_updates(pool: asyncpg.Pool) -> int:
    await pool.execute("SELECT pg_stat_force_next_flush()")
    count: int = await pool.fetchval("SELECT pg_stat_get_tuples_hot_updated('message_logs'::regclass)")
    return count
