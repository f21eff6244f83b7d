"""Delivery events of the whole program: a process that is killed after a POST repeats the event under its id."""

import signal
from datetime import UTC, datetime, timedelta

import asyncpg

from tests.support.message_service import Answer, MessageService
from tests.support.outcomes import events_to, finish, store_queued
from tests.support.product import eventually
from tests.support.program import run, running

LONG = timedelta(seconds=20)


async def test_a_process_killed_after_a_post_repeats_the_event_under_its_id(
    pool: asyncpg.Pool, database_url: str
) -> None:
    """The receiver has the event, and the database does not know it: the next process posts the same."""
    async with MessageService() as receiver:
        settings = {"DATABASE_URL": database_url, "ROLE": "scheduler", **events_to(receiver)}
        receiver.answer_with(Answer(delay=LONG))
        async with running(**settings) as program:
            await eventually(lambda: holds(pool, "SELECT events_are_sent()"), "a process sends events")
            now = datetime.now(UTC)
            await finish(pool, await store_queued(pool, 1, at=now), at=now)
            await receiver.wait_for(1)
            await program.stop(signal.SIGKILL)
        # The dead process has it for half a minute more.
        await pool.execute("UPDATE event_stream SET lease_until = clock_timestamp()")
        async with running(**settings):
            await receiver.wait_for(2)
            await eventually(lambda: holds(pool, "SELECT count(*) = 0 FROM events"), "the event is forgotten")
        first, second = receiver.requests
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert (first.path, first.body) == ("/events", second.body)
        checked = await run("check", **settings | {"EVENTS_ALLOW_PRIVATE": "false"})
        assert "private network" in checked.out
        assert "MfKQ" not in checked.out + checked.err


async def holds(pool: asyncpg.Pool, query: str) -> bool:
    """Return what a query says."""
    return bool(await pool.fetchval(query))
