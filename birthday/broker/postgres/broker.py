"""Publish, subscribe, and look at the queue in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import structlog

from birthday.broker.postgres.consumer import PostgresConsumer
from birthday.broker.postgres.dead_letters import PostgresDeadLetters
from birthday.broker.postgres.links import CONSUMER_LOCK, PRESENT_SECONDS, Link, PollingLink, SessionLink, fetch
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
    """A ``Broker`` on a pool that the caller owns.

    A consumer keeps one connection for as long as it lives, unless there are no sessions to be had.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        sessions: asyncpg.Pool | None = None,
        *,
        lease: timedelta = timedelta(seconds=30),
        timeout: timedelta = timedelta(seconds=10),
        where: str = "the queue in PostgreSQL",
    ) -> None:
        """Keep the pools. Where ``pool`` has no sessions, consumers use those of ``sessions``, or poll.

        ``lease`` is how long a dead consumer keeps its rows. ``timeout`` bounds every wait for the database. ``where``
        begins the text of every error.
        """
        self._pool = pool
        self._sessions = sessions or (None if getattr(pool, "by_transaction", False) else pool)
        self._lease = lease
        self._seconds = timeout.total_seconds()
        self._where = where

    async def publish(
        self, message_ids: Sequence[UUID], delay: timedelta = timedelta(), due_at: Sequence[datetime] = ()
    ) -> None:
        """Insert all ids in one statement, and wake the consumers if there is no delay; see ``Broker``."""
        if message_ids:
            await self._fetch(
                """
                WITH published AS (
                    INSERT INTO queue_messages (body, by_hand, available_at, due_at)
                    SELECT body, false, clock_timestamp() + $2::interval, due_at
                    FROM unnest($1::text[], $3::timestamptz[]) AS new (body, due_at)
                )
                SELECT pg_notify('queue_messages', '') WHERE $2::interval <= interval '0'
                """,
                [encode_payload(message_id).decode() for message_id in message_ids],
                max(delay, timedelta()),
                due_at,
            )

    @asynccontextmanager
    async def consume(self, prefetch: int) -> AsyncIterator[PostgresConsumer]:
        """Subscribe; see ``Broker``. On leaving, held rows are released, at once if the database can be reached."""
        consumer_id = uuid4()
        link: Link = PollingLink(self._pool, consumer_id, self._seconds, self._where)
        if self._sessions is not None:
            link = SessionLink(self._sessions, self._seconds, self._where)
        consumer = PostgresConsumer(consumer_id, link, prefetch, self._lease, self._where)
        await consumer.open()
        running: asyncio.Task[None] | None = None
        try:
            running = asyncio.create_task(consumer.run())
            yield consumer
        finally:
            consumer.stop()
            try:
                if running is not None:
                    # Not cancelled: the rows that its last claim takes must be known, so that they can be released.
                    await asyncio.wait({running}, timeout=self._seconds)
            finally:
                await link.close()
                await self._release(consumer)

    @asynccontextmanager
    async def dead_letters(self) -> AsyncIterator[PostgresDeadLetters]:
        """Browse the dead rows; see ``Broker``. It locks no rows, and keeps no connection between two steps."""
        await self.check()
        yield PostgresDeadLetters(self._fetch)

    async def stats(self) -> QueueStats:
        """Count rows, and count consumers by the lock that they share, or by their rows; see ``Broker``."""
        [row] = await self._fetch(
            """
            SELECT count(*) FILTER (WHERE available_at <= instant
                                      AND (lease_until IS NULL OR lease_until <= instant)) AS ready,
                   count(*) FILTER (WHERE lease_until > instant) AS unacked,
                   count(*) FILTER (WHERE available_at > instant) AS delayed,
                   (SELECT count(*) FROM queue_messages WHERE dead_at IS NOT NULL) AS dead,
                   (SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
                    WHERE locktype = 'advisory' AND classid = 0 AND objid::bigint = $1 AND objsubid = 1
                      AND datname = current_database())
                 + (SELECT count(*) FROM queue_consumers
                    WHERE seen_at > clock_timestamp() - make_interval(secs => $2)) AS consumers
            FROM queue_messages, (SELECT clock_timestamp() AS instant) AS clock
            WHERE dead_at IS NULL
            """,
            CONSUMER_LOCK,
            PRESENT_SECONDS,
        )
        return QueueStats(**dict(row))

    async def check(self) -> None:
        """Make sure that the table can be read; see ``Broker``."""
        await self._fetch("SELECT EXISTS (SELECT FROM queue_messages WHERE id = 0)")

    async def close(self) -> None:
        """Do nothing: the caller owns the pool."""

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        return await fetch(self._pool, self._seconds, self._where, statement, *values)

    async def _release(self, consumer: PostgresConsumer) -> None:
        """Put back what a consumer held that has ended."""
        if not consumer.held:
            return
        try:
            await self._fetch(_RELEASE, list(consumer.held), consumer.id)
        except UnavailableError as error:
            log.warning(
                "broker.release_failed", error=str(error), until="their leases run out", held=len(consumer.held)
            )
