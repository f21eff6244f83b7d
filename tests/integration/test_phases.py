"""Phase, flight and feed follow the status of a message, and so neither a claim nor an outcome needs an index."""

from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
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
from tests.support.phases import IN_FLIGHT, INSERTION, PHASES
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
    """At an insertion, and at an update without a phase; what is in flight is found by the instant of its queueing."""
    await pool.execute(INSERTION, status, NOW)
    for before in PHASES:
        await pool.execute(INSERTION, before, NOW)
        assert await _in_flight(pool) == await _ids_in_flight(pool), before
    expected = [(PHASES[status], NOW if status in IN_FLIGHT else None)]
    for change in (
        "status = $1, queued_at = NULL",
        "phase = 'delivered', status = $1",
        "queued_at = NULL, status = $1",
    ):
        await pool.execute(f"UPDATE message_logs SET {change}", status)  # noqa: S608 - one of three
        rows = await pool.fetch("SELECT DISTINCT phase, queued_at FROM message_logs")
        assert [tuple(row) for row in rows] == expected, change
        assert await _in_flight(pool) == await _ids_in_flight(pool), change


@pytest.mark.parametrize("before", PHASES)
@pytest.mark.parametrize("status", PHASES)
async def test_whoever_changes_a_status_the_flight_and_the_feed_follow(
    pool: asyncpg.Pool, before: str, status: str
) -> None:
    """From each status to each other one, by a statement that knows of neither."""
    await pool.execute(INSERTION, "queued", NOW)
    await pool.execute("UPDATE message_logs SET status = $1", before)
    assert await _in_flight(pool) == await _ids_in_flight(pool)
    await pool.execute("UPDATE message_logs SET status = $1", status)
    assert await _in_flight(pool) == await _ids_in_flight(pool)
    entries = await pool.fetchval(
        """
        SELECT count(*) FROM feed_entries e JOIN message_logs m ON m.id = e.id AND m.feed_position = e.position
        """
    )
    assert entries == (status in {"delivered", "failed", "cancelled", "expired"})
    await pool.execute("DELETE FROM message_logs")
    assert await _in_flight(pool) == {}


async def test_the_janitor_notes_what_went_into_flight_without_a_trigger(pool: asyncpg.Pool) -> None:
    """It would not be rescued otherwise; and what is not in flight is not counted as such for ever."""
    product = Product(pool, PostgresBroker(pool), ManualClock(NOW), Metrics())
    for _ in range(2):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(NOW)
    await pool.execute("ALTER TABLE message_logs DISABLE TRIGGER USER")
    lost, ended = await _in_flight(pool)
    await pool.execute("DELETE FROM in_flight WHERE id = $1", lost)
    await pool.execute("UPDATE message_logs SET status = 'delivered' WHERE id = $1", ended)
    await pool.execute("ALTER TABLE message_logs ENABLE TRIGGER USER")
    later = NOW + timedelta(minutes=14)
    await product.janitor.audit_once(later)
    assert await _in_flight(pool) == {lost: NOW, ended: NOW}, "it may just be requeued"
    later = NOW + timedelta(minutes=15)
    await product.janitor.audit_once(later)
    assert await _in_flight(pool) == await _ids_in_flight(pool) == {lost: NOW}


async def test_an_insertion_that_does_nothing_notes_nothing(pool: asyncpg.Pool) -> None:
    """Also if its row would be in flight."""
    await pool.execute(INSERTION, "delivered", NOW)
    again = """
        INSERT INTO message_logs (id, user_id, message_type, occasion_year, occasion_on, scheduled_at, ends_at,
                                  schedule_from, status, created_at, updated_at)
        SELECT id, user_id, message_type, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, 'queued',
               created_at, updated_at FROM message_logs ON CONFLICT DO NOTHING
        """
    assert await pool.execute(again) == "INSERT 0 0"
    assert await _in_flight(pool) == {}


async def test_a_message_that_falls_due_at_another_time_expires_by_that(pool: asyncpg.Pool) -> None:
    """Whoever changes when it is due, or requeues it."""
    await pool.execute(INSERTION, "queued", NOW)
    for change in ("scheduled_at = scheduled_at + interval '1 day'", "requeued_at = scheduled_at + interval '1 day'"):
        await pool.execute(f"UPDATE message_logs SET {change}")  # noqa: S608 - one of two
        [row] = await pool.fetch(
            "SELECT due_at = greatest(scheduled_at, requeued_at) AS agrees FROM in_flight JOIN message_logs USING (id)"
        )
        assert row["agrees"], change


async def test_no_message_is_in_flight_in_an_emptied_table(pool: asyncpg.Pool) -> None:
    """What tells of messages goes with them."""
    for status in ("queued", "delivered"):
        await pool.execute(INSERTION, status, NOW)
    await pool.execute("UPDATE message_logs SET status = 'failed' WHERE status = 'delivered'")
    await pool.execute("TRUNCATE message_logs")
    assert await _in_flight(pool) == {}
    assert await pool.fetchval("SELECT count(*) FROM outcomes") == 0


async def test_neither_a_claim_nor_an_outcome_touches_an_index(session: asyncpg.Pool) -> None:
    """Each is a HOT update: the version of the row that it writes stands on the same page, and in no index.

    The statements that take a message from planned to delivered note themselves what triggers note for others.
    """
    product = Product(session, PostgresBroker(session), ManualClock(NOW), Metrics())
    for _ in range(COUNT):
        await product.create(date(1990, 3, 1))
    ids = [UUID(bytes=row["id"].bytes) for row in await session.fetch("SELECT id FROM message_logs")]
    await session.execute("ALTER TABLE message_logs DISABLE TRIGGER USER")
    await mark_queued(session, ids, NOW)
    assert await _phases(session) == {"published": COUNT}
    assert await _in_flight(session) == dict.fromkeys(ids, NOW)
    before = await _hot_updates(session)
    claims = await claim(session, ids, (), NOW, parse("2027-02-27T09:00:00Z"), timedelta(minutes=1))
    assert await _hot_updates(session) - before == COUNT
    outcomes = [Settlement(one.id, one.lease_until, Status.DELIVERED, NOW, NOW, None, counted=True) for one in claims]
    assert len(await settle(session, outcomes)) == COUNT
    assert await _hot_updates(session) - before == 2 * COUNT
    assert await _phases(session) == {"published": COUNT}
    assert await _in_flight(session) == {}
    assert await session.fetchval("SELECT count(*) FROM feed_entries") == COUNT


async def _in_flight(pool: asyncpg.Pool) -> dict[UUID, datetime]:
    rows = await pool.fetch("SELECT id, queued_at FROM in_flight")
    return {row["id"]: row["queued_at"] for row in rows}


async def _ids_in_flight(pool: asyncpg.Pool) -> dict[UUID, datetime]:
    rows = await pool.fetch("SELECT id, queued_at FROM message_logs WHERE status IN ('queued', 'sending', 'retrying')")
    return {row["id"]: row["queued_at"] for row in rows}


async def _phases(pool: asyncpg.Pool) -> dict[str, int]:
    rows = await pool.fetch("SELECT phase, count(*) FROM message_logs GROUP BY phase")
    return dict(map(tuple, rows))


async def _hot_updates(pool: asyncpg.Pool) -> int:
    await pool.execute("SELECT pg_stat_force_next_flush()")
    count: int = await pool.fetchval("SELECT pg_stat_get_tuples_hot_updated('message_logs'::regclass)")
    return count
