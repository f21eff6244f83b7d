"""Publish, subscribe, and look at the queue in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from birthday.broker.postgres.consumer import CONSUMER_LOCK, PostgresConsumer, reported
from birthday.broker.postgres.dead_letters import PostgresDeadLetters
from birthday.broker.protocol import QueueStats, encode_payload
from birthday.errors import UnavailableError

log = structlog.get_logger()

_RELEASE: Final = """
    WITH released AS (
        UPDATE queue_messages SET consumer_id = NULL, lease_until = NULL
        WHERE id = ANY($1::bigint[]) AND consumer_id = $2
    )
    SELECT pg_notify('queue_messages', '')
"""


class PostgresBroker:
    """A ``Broker`` on a pool that the caller owns. A consumer keeps one connection of it for as long as it lives."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        *,
        lease: timedelta = timedelta(seconds=30),
        timeout: timedelta = timedelta(seconds=10),
        where: str = "the queue in PostgreSQL",
    ) -> None:
        """Keep the pool.

        ``lease`` is how long a dead consumer keeps its rows. ``timeout`` bounds every wait for the database. ``where``
        begins the text of every error.
        """
        self._pool = pool
        self._lease = lease
        self._seconds = timeout.total_seconds()
        self._where = where

    async def publish(self, message_ids: Sequence[UUID], delay: timedelta = timedelta()) -> None:
        """Insert all ids in one statement, and wake the consumers if there is no delay; see ``Broker``."""
        if message_ids:
            await self._fetch(
                """
                WITH published AS (
                    INSERT INTO queue_messages (body, by_hand, available_at)
                    SELECT body, false, clock_timestamp() + $2::interval FROM unnest($1::text[]) AS body
                )
                SELECT pg_notify('queue_messages', '') WHERE $2::interval <= interval '0'
                """,
                [encode_payload(message_id).decode() for message_id in message_ids],
                max(delay, timedelta()),
            )

    @asynccontextmanager
    async def consume(self, prefetch: int) -> AsyncIterator[PostgresConsumer]:
        """Subscribe; see ``Broker``. On leaving, held rows are released, at once if the database can be reached."""
        with reported(self._where):
            connection = await self._pool.acquire(timeout=self._seconds)
        consumer = PostgresConsumer(self._pool, connection, prefetch, self._lease, self._seconds, self._where)
        running: asyncio.Task[None] | None = None
        try:
            await consumer.subscribe()
            running = asyncio.create_task(consumer.run())
            yield consumer
        finally:
            consumer.stop()
            try:
                if running is not None:
                    # Not cancelled: the rows that its last claim takes must be known, so that they can be released.
                    await asyncio.wait({running}, timeout=self._seconds)
            finally:
                await self._end(consumer)

    @asynccontextmanager
    async def dead_letters(self) -> AsyncIterator[PostgresDeadLetters]:
        """Browse the dead rows; see ``Broker``. It locks no rows, and keeps no connection between two steps."""
        await self.check()
        yield PostgresDeadLetters(self._fetch)

    async def stats(self) -> QueueStats:
        """Count rows, and count consumers by the lock that they share; see ``Broker``."""
        [row] = await self._fetch(
            """
            SELECT count(*) FILTER (WHERE available_at <= instant
                                      AND (lease_until IS NULL OR lease_until <= instant)) AS ready,
                   count(*) FILTER (WHERE lease_until > instant) AS unacked,
                   count(*) FILTER (WHERE available_at > instant) AS delayed,
                   (SELECT count(*) FROM queue_messages WHERE dead_at IS NOT NULL) AS dead,
                   (SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                    WHERE locktype = 'advisory' AND classid = 0 AND objid::bigint = $1 AND objsubid = 1
                      AND datname = current_database()) AS consumers
            FROM queue_messages, (SELECT clock_timestamp() AS instant) AS clock
            WHERE dead_at IS NULL
            """,
            CONSUMER_LOCK,
        )
        return QueueStats(**dict(row))

    async def check(self) -> None:
        """Make sure that the table can be read; see ``Broker``."""
        await self._fetch("SELECT EXISTS (SELECT FROM queue_messages WHERE id = 0)")

    async def close(self) -> None:
        """Do nothing: the caller owns the pool."""

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with reported(self._where):
            async with self._pool.acquire(timeout=self._seconds) as connection:
                rows: list[asyncpg.Record] = await connection.fetch(statement, *values, timeout=self._seconds)
                return rows

    async def _end(self, consumer: PostgresConsumer) -> None:
        """Restore the consumer's connection and give it back to the pool. Release the consumer's rows."""
        with suppress(UnavailableError), reported(self._where):
            clean = False
            try:
                await consumer.unsubscribe()
                clean = True
            finally:
                if not clean:
                    # Other users of the pool must not get a connection with the consumer's setting, listener and lock.
                    consumer.connection.terminate()
                await self._pool.release(consumer.connection, timeout=self._seconds)
        if consumer.held:
            try:
                await self._fetch(_RELEASE, list(consumer.held), consumer.id)
            except UnavailableError as error:
                log.warning(
                    "broker.release_failed", error=str(error), until="their leases run out", held=len(consumer.held)
                )
