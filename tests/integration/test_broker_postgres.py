"""What only the broker on PostgreSQL does: leases, its connection, and a queue that stays fast among dead letters."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from birthday.broker import Delivery
from birthday.broker.postgres import PostgresBroker
from birthday.broker.postgres.consumer import CLAIM, PostgresConsumer
from birthday.broker.postgres.links import PollingLink
from birthday.errors import UnavailableError
from tests.support.postgres import PostgresServer
from tests.support.product import eventually, is_waiting_for_a_lock

SECONDS = 10.0
"""How long something may take that should take no time."""


@pytest.fixture
def broker(pool: asyncpg.Pool) -> PostgresBroker:
    """Return a broker whose leases outlast every test."""
    return PostgresBroker(pool, lease=timedelta(minutes=5))


async def receive(consumer: PostgresConsumer, number: int) -> list[Delivery]:
    """Receive exactly so many deliveries."""
    received: list[Delivery] = []
    async with asyncio.timeout(SECONDS):
        while len(received) < number:
            received += await consumer.receive(number - len(received), 0)
    return received


class TestLeases:
    """Who holds a row, and for how long."""

    async def test_a_living_consumer_keeps_what_it_has(self, pool: asyncpg.Pool) -> None:
        """While a consumer lives, its leases move on and never run out, so that nobody else gets what it holds."""
        # A lease is extended after a third of it: on a busy machine, that may come a second late.
        broker = PostgresBroker(pool, lease=timedelta(seconds=3))
        await broker.publish([uuid4()])
        async with broker.consume(prefetch=1) as consumer, asyncio.timeout(SECONDS):
            await receive(consumer, 1)
            first_lease: datetime = await pool.fetchval("SELECT lease_until FROM queue_messages")
            instant = first_lease - timedelta(seconds=1)
            while instant <= first_lease:
                [(lease_until, instant)] = await pool.fetch("SELECT lease_until, clock_timestamp() FROM queue_messages")
                assert lease_until > instant
                await asyncio.sleep(0.02)
            assert (await broker.stats()).unacked == 1

    async def test_what_was_taken_over_is_left_alone(self, broker: PostgresBroker, pool: asyncpg.Pool) -> None:
        """A consumer that wakes up after its leases ran out cannot touch what another one has taken meanwhile."""
        await broker.publish([uuid4() for _ in range(3)])
        async with AsyncExitStack() as others:
            async with broker.consume(prefetch=3) as sleeper:
                lost = await receive(sleeper, 3)
                await pool.execute("UPDATE queue_messages SET lease_until = clock_timestamp() - interval '1 second'")
                other = await others.enter_async_context(broker.consume(prefetch=3))
                taken = await receive(other, 3)
                assert all(delivery.redelivered for delivery in taken)
                await sleeper.ack(lost[:1])
                await sleeper.reject(lost[1:2])
            stats = await broker.stats()
            assert (stats.unacked, stats.dead, stats.ready) == (3, 0, 0)
            await other.ack(taken)
        assert await pool.fetchval("SELECT count(*) FROM queue_messages") == 0

    async def test_what_one_leaves_another_gets(self, broker: PostgresBroker) -> None:
        """What a consumer puts back on leaving reaches one that was already waiting."""
        await broker.publish([uuid4(), uuid4()])
        async with broker.consume(prefetch=1) as waiting:
            async with broker.consume(prefetch=1) as leaving:
                [held] = await receive(leaving, 1)
                await waiting.ack(await receive(waiting, 1))
            [delivery] = await receive(waiting, 1)
            assert delivery.message_id == held.message_id
            assert delivery.redelivered

    async def test_a_dead_letter_keeps_its_time(self, broker: PostgresBroker, pool: asyncpg.Pool) -> None:
        """A rejected row stays, with what it carried and when it was rejected, and is held by nobody."""
        message_id = uuid4()
        await broker.publish([message_id])
        before: datetime = await pool.fetchval("SELECT clock_timestamp()")
        async with broker.consume(prefetch=1) as consumer:
            await consumer.reject(await receive(consumer, 1))
        [row] = await pool.fetch("SELECT body, dead_at, consumer_id, lease_until FROM queue_messages")
        assert row["body"] == f'{{"messageId":"{message_id}"}}'
        assert row["dead_at"] > before
        assert (row["consumer_id"], row["lease_until"]) == (None, None)


class TestConnections:
    """The pool, the consumer's connection, and a server that fails."""

    async def test_one_connection_is_enough_and_comes_back_clean(self, database_url: str) -> None:
        """A consumer works on a pool of one, which has it back as it was: no setting, lock or subscription stays."""
        async with asyncpg.create_pool(database_url, min_size=1, max_size=1, reset=_keep) as pool:
            broker = PostgresBroker(pool)
            await broker.publish([uuid4(), uuid4()])
            async with broker.consume(prefetch=2) as consumer:
                [first, _] = await receive(consumer, 2)
                await consumer.ack([first])
            stats = await broker.stats()
            assert (stats.ready, stats.unacked, stats.consumers) == (1, 0, 0)
            assert await pool.fetchval("SHOW plan_cache_mode") == "auto"
            assert (
                await pool.fetch("SELECT name FROM pg_settings WHERE name LIKE 'enable%' AND source = 'session'") == []
            )
            assert await pool.fetch("SELECT pg_listening_channels()") == []

    async def test_a_polling_consumer_executes_one_statement_at_a_time(self, pool: asyncpg.Pool) -> None:
        """Two statements that update the same rows, such as an ack and an extension of leases, could deadlock."""
        link = PollingLink(pool, uuid4(), SECONDS, "the queue")
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute("SELECT pg_advisory_xact_lock(1)")
            first = asyncio.create_task(link.fetch("SELECT pg_advisory_xact_lock(1)"))
            waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
            await eventually(lambda: pool.fetchval(waiting), "the first statement waits")
            second = asyncio.create_task(link.fetch("SELECT"))
            done, _ = await asyncio.wait({second}, timeout=0.2)
            assert not done
        await asyncio.gather(first, second)

    async def test_an_exhausted_pool_is_not_waited_for_for_ever(self, database_url: str) -> None:
        """When no connection becomes free in time, publishing and consuming say so."""
        async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool, pool.acquire():
            broker = PostgresBroker(pool, timeout=timedelta(seconds=0.1))
            with pytest.raises(UnavailableError, match="no answer in time"):
                await broker.publish([uuid4()])
            with pytest.raises(UnavailableError, match="no answer in time"):
                async with broker.consume(prefetch=1):
                    pass

    async def test_a_lost_connection_ends_the_consumer(self, broker: PostgresBroker, pool: asyncpg.Pool) -> None:
        """When its connection is closed by the server, the consumer is told promptly, and what it had is put back."""
        await broker.publish([uuid4()])
        async with broker.consume(prefetch=2) as consumer:
            await receive(consumer, 1)
            waiting = asyncio.create_task(consumer.receive(1, 0))
            await pool.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            async with asyncio.timeout(SECONDS):
                with pytest.raises(UnavailableError, match="connection"):
                    await waiting
        async with broker.consume(prefetch=1) as consumer:
            [again] = await receive(consumer, 1)
            assert again.redelivered

    async def test_an_ack_that_fails_ends_the_consumer(self, broker: PostgresBroker, pool: asyncpg.Pool) -> None:
        """The connection survives, and yet all that was held comes again: nothing is held that nobody will ack."""
        await broker.publish([uuid4(), uuid4()])
        async with broker.consume(prefetch=2) as consumer, asyncio.timeout(SECONDS):
            held = await receive(consumer, 2)
            async with pool.acquire() as holder, holder.transaction():
                await holder.execute("SELECT FROM queue_messages FOR UPDATE")
                acking = asyncio.create_task(consumer.ack(held[:1]))
                await eventually(lambda: is_waiting_for_a_lock(pool), "the ack waits")
                await pool.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                with pytest.raises(UnavailableError, match="canceling statement"):
                    await acking
            with pytest.raises(UnavailableError, match="canceling statement"):
                await consumer.receive(1, 0)
        async with broker.consume(prefetch=2) as consumer:
            again = await receive(consumer, 2)
            assert {delivery.tag for delivery in again} == {delivery.tag for delivery in held}

    async def test_a_killed_server(
        self, broker: PostgresBroker, pool: asyncpg.Pool, postgres_server: PostgresServer
    ) -> None:
        """When the server dies, everybody is told promptly; when it is back, so are the messages, and all goes on."""
        message_id = uuid4()
        await broker.publish([message_id])
        async with broker.consume(prefetch=2) as consumer:
            [held] = await receive(consumer, 1)
            waiting = asyncio.create_task(consumer.receive(1, 0))
            await postgres_server.kill()
            async with asyncio.timeout(SECONDS):
                with pytest.raises(UnavailableError):
                    await waiting
                with pytest.raises(UnavailableError):
                    await consumer.ack([held])
                with pytest.raises(UnavailableError):
                    await broker.publish([uuid4()])
        await postgres_server.start()
        # The consumer could not put it back: its lease would have to run out.
        await pool.execute("UPDATE queue_messages SET lease_until = clock_timestamp()")
        async with broker.consume(prefetch=1) as consumer:
            [again] = await receive(consumer, 1)
            assert again.message_id == message_id
            assert again.redelivered


class TestSpeed:
    """What keeps the queue fast."""

    async def test_claiming_goes_by_the_index(self, broker: PostgresBroker, pool: asyncpg.Pool) -> None:
        """However many dead and delayed rows there are, a claim goes straight to what is ready."""
        await pool.execute(
            "INSERT INTO queue_messages (body, dead_at) SELECT 'x', clock_timestamp() FROM generate_series(1, 20000)"
        )
        await pool.execute(
            "INSERT INTO queue_messages (body, available_at) "
            "SELECT 'x', clock_timestamp() + interval '1 hour' FROM generate_series(1, 20000)"
        )
        await broker.publish([uuid4() for _ in range(5)])
        plan = await pool.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {CLAIM}", 10, uuid4(), timedelta(seconds=30), 1024)
        text = "\n".join(line for (line,) in plan)
        assert "Index Scan using queue_messages_live" in text
        assert "Seq Scan" not in text

    @pytest.mark.parametrize("looked_at", ["empty", "full"])
    async def test_a_claim_reads_no_more_than_it_takes(
        self, pool: asyncpg.Pool, database_url: str, looked_at: str
    ) -> None:
        """A long queue is read in the order of the index, whether it was long or empty when PostgreSQL last looked."""
        async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as sessions:
            broker = PostgresBroker(pool, sessions)
            if looked_at == "empty":
                await pool.execute("ANALYZE queue_messages")
            await broker.publish([uuid4() for _ in range(3000)])
            if looked_at == "full":
                await pool.execute("ANALYZE queue_messages")
            before = await _rows_read(sessions)
            async with broker.consume(prefetch=10) as consumer:
                await consumer.ack(await receive(consumer, 10))
                await receive(consumer, 10)
            assert 20 <= await _rows_read(sessions) - before <= 300

    async def test_a_body_of_a_megabyte_stays_where_it_is(self, broker: PostgresBroker, pool: asyncpg.Pool) -> None:
        """A consumer gets the beginning, which is no message; the dead letter has it all, and was not written anew."""
        body = f'{{"messageId":"{uuid4()}"}}'.ljust(1_000_000) + "é"
        await pool.execute("ALTER TABLE queue_messages ALTER COLUMN body SET STORAGE EXTERNAL")
        await pool.execute("INSERT INTO queue_messages (body) VALUES ($1)", body)
        stored = await _stored_bytes(pool)
        async with broker.consume(prefetch=1) as consumer:
            [delivery] = await receive(consumer, 1)
            assert (delivery.message_id, delivery.size_bytes) == (None, 1_000_002)
            assert len(delivery.body) < 5_000
            await consumer.reject([delivery])
        async with broker.dead_letters() as browsing:
            [letter] = await browsing.take()
        assert letter.body == body.encode()
        assert await _stored_bytes(pool) == stored > 1_000_000


async def _stored_bytes(pool: asyncpg.Pool) -> int:
    """Return how much there is of what PostgreSQL keeps apart from the rows of the queue because it is long."""
    stored: int = await pool.fetchval(
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'queue_messages'::regclass"
    )
    return stored


async def _rows_read(sessions: asyncpg.Pool) -> int:
    """Return how many rows of the queue have been read so far, at least by the one connection of this pool."""
    await sessions.execute("SELECT pg_stat_force_next_flush()")
    count: int = await sessions.fetchval(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'queue_messages'"
    )
    return count


async def _keep(_: object) -> None:
    """Reset nothing when a connection goes back to its pool."""
