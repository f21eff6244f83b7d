"""What a connection costs before its statements are as cheap as they get: types and plans."""

from datetime import timedelta
from uuid import uuid4

import pytest

from benchmarks.seeds import make_messages
from birthday.core.message import Status
from birthday.store.claims import claim
from birthday.store.replacing import ReplacingPool
from birthday.store.settling import Settlement, settle
from tests.support.postgres import pool_by_transaction
from tests.support.product import parse

NOW = parse("2027-03-01T09:00:00Z")
ASKED = """
    SELECT coalesce(sum(generic_plans + custom_plans), 0)::int
    FROM pg_prepared_statements WHERE statement LIKE 'WITH RECURSIVE typeinfo_tree%'
"""
READ_TO_THE_END = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'message_logs'"


async def test_only_the_first_connection_asks_what_types_are_made_of(database_url: str) -> None:
    """The others of the pool know PostgreSQL's own types from it, but ask for those of the database each time."""
    async with ReplacingPool(database_url, min_size=2, max_size=2) as pool:
        ids = [uuid4(), uuid4()]
        async with pool.acquire() as first, pool.acquire() as second:
            for connection, asked in ((first, 1), (second, 0)):
                assert await connection.fetchval("SELECT $1::uuid[]", ids) == ids
                assert await connection.fetchval(ASKED) == asked
            for connection, asked in ((first, 2), (second, 1)):
                row = await connection.fetchval("SELECT seen FROM queue_consumers seen RIGHT JOIN (SELECT) one ON true")
                assert (row, await connection.fetchval(ASKED)) == (None, asked)


async def test_types_are_known_behind_a_pooler_by_transaction(database_url: str) -> None:
    """There statements have no names, and what is known of types still serves all connections."""
    async with pool_by_transaction(database_url, 2) as pool, pool.acquire() as first, pool.acquire() as second:
        for connection in (first, second, first):
            assert await connection.fetchval("SELECT $1::date[]", [NOW.date()]) == [NOW.date()]


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_small_table_is_not_read_to_its_end(database_url: str, mode: str) -> None:
    """However many messages a claim or a settlement has, it finds them by their ids."""
    async with ReplacingPool(database_url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            ids = await make_messages(connection, 2000, NOW, "queued")
        await pool.execute("SELECT set_config('plan_cache_mode', $1, false)", mode)
        await pool.execute("SELECT pg_stat_force_next_flush()")
        before = await pool.fetchval(READ_TO_THE_END)
        claims = await claim(pool, ids[:200], (), NOW, NOW - timedelta(days=2), timedelta(minutes=1))
        done = [Settlement(one.id, one.lease_until, Status.DELIVERED, NOW, NOW, None, counted=True) for one in claims]
        assert len(await settle(pool, done)) == 200
        await pool.execute("SELECT pg_stat_force_next_flush()")
        assert await pool.fetchval(READ_TO_THE_END) == before
