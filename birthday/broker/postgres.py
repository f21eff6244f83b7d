"""The queue in PostgreSQL: the table ``queue_messages``, rows of which consumers hold under leases.

A row is handed out by an UPDATE that gives it to one consumer until an instant of the database's clock, which the
consumer moves on for as long as it lives. An ack deletes the row, a reject leaves it as a dead letter, and a lease that
runs out, or a consumer that leaves, puts it back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import structlog

from birthday.broker.protocol import DeadLetter, Delivery, Inbox, QueueStats, Wait, decode_payload, encode_payload
from birthday.errors import UnavailableError

log = structlog.get_logger()

_CHANNEL: Final = "queue_messages"
"""Where publishers NOTIFY that there is something new."""
_CONSUMER_LOCK: Final = 760_325_001
"""Key of an advisory lock that consumers share, so that pg_locks knows how many there are. It dies with its holder."""
_POLL_SECONDS: Final = 0.5
"""How often to look for what nobody is notified of: delays that end, leases that run out, rows inserted by hand."""
_CLAIM_MOST: Final = 500
_DEAD_MOST: Final = 200
"""There may be some of a megabyte."""
_BODY_CHARACTERS: Final = 1024
"""A longer body is no message of ours, so no consumer needs all of it: hundreds of a megabyte would fill its memory."""

# clock_timestamp() changes while a statement runs, so an index cannot be asked about it; a subselect is evaluated once.
# Safe under concurrency: a row that another consumer is taking is skipped, and one that it has just taken is looked at
# again once locked, and then its lease rules it out.
CLAIM: Final = """
    WITH next AS (
        SELECT id FROM queue_messages
        WHERE dead_at IS NULL AND available_at <= (SELECT clock_timestamp())
          AND (lease_until IS NULL OR lease_until <= (SELECT clock_timestamp()))
        ORDER BY available_at LIMIT $1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE queue_messages held
    SET consumer_id = $2, lease_until = clock_timestamp() + $3::interval, deliveries = deliveries + 1
    FROM next WHERE held.id = next.id
    RETURNING held.id, left(held.body, $4) AS body, octet_length(held.body) AS size, held.by_hand, held.deliveries
"""
# The consumer's id fences all of these: what somebody else has taken after the lease ran out is left alone.
_EXTEND: Final = """
    UPDATE queue_messages SET lease_until = clock_timestamp() + $3::interval
    WHERE id = ANY($1::bigint[]) AND consumer_id = $2
"""
_ACK: Final = "DELETE FROM queue_messages WHERE id = ANY($1::bigint[]) AND consumer_id = $2"
_REJECT: Final = """
    UPDATE queue_messages SET dead_at = clock_timestamp(), consumer_id = NULL, lease_until = NULL
    WHERE id = ANY($1::bigint[]) AND consumer_id = $2
"""
_RELEASE: Final = """
    WITH released AS (
        UPDATE queue_messages SET consumer_id = NULL, lease_until = NULL
        WHERE id = ANY($1::bigint[]) AND consumer_id = $2
    )
    SELECT pg_notify('queue_messages', '')
"""


class PostgresBroker:
    """A ``Broker`` on a pool that somebody else owns. A consumer keeps one connection of it for as long as it lives."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        *,
        lease: timedelta = timedelta(seconds=30),
        timeout: timedelta = timedelta(seconds=10),
        where: str = "the queue in PostgreSQL",
    ) -> None:
        """Keep the pool.

        ``lease`` is how long a consumer that died keeps what it held, ``timeout`` bounds every wait for the database,
        and ``where`` begins the text of every error.
        """
        self._pool = pool
        self._lease = lease
        self._seconds = timeout.total_seconds()
        self._where = where

    async def publish(self, message_ids: Sequence[UUID], delay: timedelta = timedelta()) -> None:
        """Insert all of them in one statement, and wake the consumers if they can have them now; see ``Broker``.

        Raises:
            UnavailableError: if the database cannot be used. None is taken then, unless only its answer was lost.
        """
        if message_ids:
            await self._execute(
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
    async def consume(self, prefetch: int) -> AsyncIterator["PostgresConsumer"]:
        """Subscribe; see ``Broker``. What was held is put back on leaving, at once if the database can be reached.

        Raises:
            UnavailableError: on entering, if the database cannot be used.
        """
        with _reported(self._where):
            connection = await self._pool.acquire(timeout=self._seconds)
        consumer = PostgresConsumer(connection, prefetch, self._lease, self._seconds, self._where)
        running: asyncio.Task[None] | None = None
        try:
            await consumer.subscribe()
            running = asyncio.create_task(consumer.run())
            yield consumer
        finally:
            consumer.stop()
            try:
                if running is not None:
                    # Not cancelled: what a claim has taken must be known, so that it can be put back.
                    await asyncio.wait({running}, timeout=self._seconds)
            finally:
                await self._end(consumer, connection)

    @asynccontextmanager
    async def dead_letters(self) -> AsyncIterator["PostgresDeadLetters"]:
        """Walk through the dead rows; see ``Broker``. It holds nothing, and no connection between two steps.

        Raises:
            UnavailableError: on entering, if the database cannot be used.
        """
        await self.check()
        yield PostgresDeadLetters(self._fetch)

    async def stats(self) -> QueueStats:
        """Count rows, and consumers by the lock that they share; see ``Broker``.

        Raises:
            UnavailableError: if the database cannot be used.
        """
        with _reported(self._where):
            async with self._pool.acquire(timeout=self._seconds) as connection:
                [row] = await connection.fetch(
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
                    _CONSUMER_LOCK,
                    timeout=self._seconds,
                )
        return QueueStats(**dict(row))

    async def check(self) -> None:
        """Make sure that the table can be read; see ``Broker``.

        Raises:
            UnavailableError: if it cannot; the text says why.
        """
        await self._execute("SELECT EXISTS (SELECT FROM queue_messages)")

    async def close(self) -> None:
        """Do nothing: the pool belongs to whoever made it."""

    async def _execute(self, statement: str, *values: object) -> None:
        await self._fetch(statement, *values)

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with _reported(self._where):
            async with self._pool.acquire(timeout=self._seconds) as connection:
                rows: list[asyncpg.Record] = await connection.fetch(statement, *values, timeout=self._seconds)
                return rows

    async def _end(self, consumer: "PostgresConsumer", connection: asyncpg.pool.PoolConnectionProxy) -> None:
        """Give a consumer's connection back as it was, and its rows to the others."""
        with suppress(UnavailableError), _reported(self._where):
            clean = False
            try:
                await consumer.unsubscribe()
                clean = True
            finally:
                if not clean:
                    # It must not be lent to others with what the consumer has set, listens to and holds.
                    connection.terminate()
                await self._pool.release(connection, timeout=self._seconds)
        if consumer.held:
            try:
                await self._execute(_RELEASE, list(consumer.held), consumer.id)
            except UnavailableError as error:
                log.warning(
                    "broker.release_failed", error=str(error), until="their leases run out", held=len(consumer.held)
                )


class PostgresConsumer:
    """A ``Consumer`` that does everything on one connection. Once that breaks, every method raises.

    ``run`` claims ahead, up to the prefetch, and moves the leases of all that is held.
    """

    def __init__(
        self,
        connection: asyncpg.pool.PoolConnectionProxy,
        prefetch: int,
        lease: timedelta,
        seconds: float,
        where: str,
    ) -> None:
        """Keep what is passed in; ``PostgresBroker.consume`` calls ``subscribe`` and then ``run``."""
        self.id = uuid4()
        self.held: set[int] = set()
        self._connection = connection
        self._prefetch = prefetch
        self._lease = lease
        self._seconds = seconds
        self._where = where
        self._inbox: Inbox[Delivery] = Inbox()
        self._turn = asyncio.Lock()
        self._claiming = asyncio.Lock()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._ceasing = False
        self._stopping = False

    async def receive(self, most: int, wait: Wait) -> list[Delivery]:
        """Take what has been claimed; see ``Consumer``.

        Raises:
            UnavailableError: once the subscription is over.
        """
        handed_out = len(self.held) - len(self._inbox)
        return await self._inbox.take(max(1, min(most, self._prefetch - handed_out)), wait)

    async def cease(self) -> None:
        """Claim nothing more, and keep what is held; see ``Consumer``.

        Raises:
            UnavailableError: once the subscription is over.
        """
        self._inbox.check()
        self._ceasing = True
        async with self._claiming:
            self._inbox.cease()

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Delete these, in one statement; see ``Consumer``.

        Raises:
            UnavailableError: once the subscription is over.
        """
        await self._settle(_ACK, deliveries)

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Mark these as dead, in one statement; see ``Consumer``.

        Raises:
            UnavailableError: once the subscription is over.
        """
        await self._settle(_REJECT, deliveries)

    async def subscribe(self) -> None:
        """Prepare the connection, and listen on it.

        Raises:
            UnavailableError: if it breaks.
        """
        self._connection.add_termination_listener(self._on_terminated)
        with _reported(self._where):
            # A plan made while the queue is empty would read all of it later, when it is full.
            await self._connection.execute("SET plan_cache_mode = force_custom_plan", timeout=self._seconds)
            await self._connection.execute("SELECT pg_advisory_lock_shared($1)", _CONSUMER_LOCK, timeout=self._seconds)
            async with asyncio.timeout(self._seconds):
                await self._connection.add_listener(_CHANNEL, self._on_notified)

    async def unsubscribe(self) -> None:
        """Undo what ``subscribe`` did to the connection."""
        self._connection.remove_termination_listener(self._on_terminated)
        if not self._connection.is_closed():
            # Not all of the session: what the pool has set must stay.
            async with asyncio.timeout(self._seconds):
                await self._connection.remove_listener(_CHANNEL, self._on_notified)
                await self._connection.execute("RESET plan_cache_mode")
                await self._connection.execute("SELECT pg_advisory_unlock_all()")

    async def run(self) -> None:
        """Claim whenever there is room and something to claim, until ``stop`` or until the connection breaks."""
        pause = min(_POLL_SECONDS, self._lease.total_seconds() / 3)
        try:
            extend_at = 0.0
            while not self._stopping:
                extend_at = await self._extend(extend_at)
                self._room.clear()
                self._news.clear()
                wanted = 0 if self._ceasing else min(_CLAIM_MOST, self._prefetch - len(self.held))
                if wanted == 0:
                    await _wait(self._room, pause)
                elif await self._claim(wanted) < wanted:
                    await _wait(self._news, pause)
        except UnavailableError as error:
            self._inbox.fail(str(error))
        finally:
            # Nobody may wait for what nobody claims any more, whatever the reason is.
            self._inbox.fail("this subscription has ended")

    def stop(self) -> None:
        """End the subscription; what ``run`` is doing with the database is still finished."""
        self._stopping = True
        self._news.set()
        self._room.set()
        self._inbox.fail("this subscription has ended")

    async def _claim(self, wanted: int) -> int:
        async with self._claiming:
            rows = await self._fetch(CLAIM, wanted, self.id, self._lease, _BODY_CHARACTERS)
            for row in rows:
                self.held.add(row["id"])
                self._inbox.put(_delivery(row))
        return len(rows)

    async def _extend(self, due_at: float) -> float:
        """Move the leases if that is due, and return when it is due next, in the loop's time."""
        now = asyncio.get_running_loop().time()
        if now < due_at:
            return due_at
        if self.held:
            await self._fetch(_EXTEND, list(self.held), self.id, self._lease)
        return now + self._lease.total_seconds() / 3

    async def _settle(self, statement: str, deliveries: Sequence[Delivery]) -> None:
        self._inbox.check()
        ids = [delivery.tag for delivery in deliveries]
        if ids:
            await self._fetch(statement, ids, self.id)
            self.held.difference_update(ids)
            self._room.set()

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with _reported(self._where):
            async with self._turn:
                rows: list[asyncpg.Record] = await self._connection.fetch(statement, *values, timeout=self._seconds)
                return rows

    def _on_notified(self, *_: object) -> None:
        self._news.set()

    def _on_terminated(self, _: object) -> None:
        self._inbox.fail(f"{self._where}: the connection of the consumer was closed")
        self._news.set()
        self._room.set()


def _delivery(row: asyncpg.Record) -> Delivery:
    body = row["body"].encode()
    cut = row["size"] > len(body)
    message_id = None if cut else decode_payload(body)
    size_bytes = row["size"] if cut else None
    return Delivery(row["id"], message_id, row["deliveries"] > 1, body, row["by_hand"], size_bytes)


class PostgresDeadLetters:
    """A ``DeadLetters`` by position: the instant of death, then the row's id."""

    def __init__(self, fetch: Callable[..., Awaitable[list[asyncpg.Record]]]) -> None:
        """Begin before the first one."""
        self._fetch = fetch
        self._died_at = datetime(1970, 1, 1, tzinfo=UTC)
        self._id = 0

    async def take(self) -> list[DeadLetter]:
        """Read the next rows; see ``DeadLetters``.

        Raises:
            UnavailableError: if the database cannot be used.
        """
        rows = await self._fetch(
            """
            SELECT id, body, dead_at FROM queue_messages
            WHERE dead_at IS NOT NULL AND (dead_at, id) > ($1, $2)
            ORDER BY dead_at, id LIMIT $3
            """,
            self._died_at,
            self._id,
            _DEAD_MOST,
        )
        if rows:
            self._died_at, self._id = rows[-1]["dead_at"], rows[-1]["id"]
        bodies = [row["body"].encode() for row in rows]
        return [
            DeadLetter(row["id"], decode_payload(body), body, "rejected", row["dead_at"], {})
            for row, body in zip(rows, bodies, strict=True)
        ]

    async def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these, in one statement; see ``DeadLetters``.

        Raises:
            UnavailableError: if the database cannot be used.
        """
        ids = [letter.tag for letter in letters]
        await self._fetch("DELETE FROM queue_messages WHERE id = ANY($1::bigint[]) AND dead_at IS NOT NULL", ids)


@contextmanager
def _reported(where: str) -> Iterator[None]:
    """Turn what asyncpg raises into an ``UnavailableError`` that begins with ``where``."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        late = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        raise UnavailableError("queue", f"{where}: {str(error) or late}") from error


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
