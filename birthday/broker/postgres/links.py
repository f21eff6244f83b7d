"""How a consumer of the queue in PostgreSQL reaches it: over a session of its own, or without one.

A session is notified of new rows, and its advisory lock shows that the consumer lives. A pooler that hands connections
out by transaction has no sessions: there a consumer asks often, and shows that it lives by a row.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol
from uuid import UUID

import asyncpg

from birthday.errors import UnavailableError

CONSUMER_LOCK: Final = 760_325_001
"""Key of an advisory lock that consumers share, so that pg_locks shows how many live. It ends with its connection."""
PRESENT_SECONDS: Final = 30
"""How long a row of ``queue_consumers`` shows that a consumer lives. It is renewed three times as often."""
_CHANNEL: Final = "queue_messages"
"""The channel on which publishers NOTIFY that a row is ready."""
_MOVE_SECONDS: Final = 5.0
"""How often to look for a free connection, which delays the next claim if there is none."""
_MOVE_WAIT_SECONDS: Final = 0.5

# All statements of a session find their rows by an index. Otherwise their plans would depend on how long the queue was
# when PostgreSQL last looked: if it was empty, a claim reads and sorts all that is ready, and if it was long, a claim
# joins with all of it. So one plan serves all times. To plan each claim and ack takes 1 µs for each message.
_SET: Final = """
    SET plan_cache_mode = force_generic_plan;
    SET enable_sort = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off
"""
_RESET: Final = """
    RESET plan_cache_mode;
    RESET enable_sort; RESET enable_seqscan; RESET enable_hashjoin; RESET enable_mergejoin
"""

# Concurrent reports are safe: each consumer writes its own row, and skips old ones that another one is removing.
_REPORT: Final = """
    WITH gone AS (
        DELETE FROM queue_consumers WHERE id IN (
            SELECT id FROM queue_consumers WHERE seen_at < clock_timestamp() - interval '1 hour' AND id <> $1
            FOR UPDATE SKIP LOCKED)
    )
    INSERT INTO queue_consumers (id, seen_at) VALUES ($1, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at
"""


class Link(Protocol):
    """What a consumer needs of the database. Every method raises ``UnavailableError`` if that cannot be used."""

    poll_seconds: float
    """How often to look for rows: those of which no notification tells, such as those whose delay ends."""

    async def open(self, on_news: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Begin: ``on_news`` is called when rows may be ready, ``on_lost`` when the link is of no use any more."""

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Execute a statement."""

    async def tend(self) -> None:
        """Do what is due; to be called between two claims."""

    async def close(self) -> None:
        """End what ``open`` began, as far as that is possible."""


class SessionLink:
    """One connection of a pool, for as long as the consumer lives. It is exchanged when the pool has retired it."""

    poll_seconds = 0.5

    def __init__(self, pool: asyncpg.Pool, seconds: float, where: str) -> None:
        """Take a pool whose connections are sessions. ``seconds`` is the limit of every wait."""
        self._pool = pool
        self._seconds = seconds
        self._where = where
        self._turn = asyncio.Lock()
        self._move_at = 0.0
        self._on_news: Callable[[], None]
        self._on_lost: Callable[[], None]
        self._connection: asyncpg.pool.PoolConnectionProxy

    async def open(self, on_news: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Take a connection and listen on it; see ``Link``."""
        self._on_news, self._on_lost = on_news, on_lost
        with reported(self._where):
            self._connection = await self._pool.acquire(timeout=self._seconds)
        try:
            await self._subscribe()
        except BaseException:
            await self.close()
            raise

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Execute a statement on the connection; see ``Link``."""
        with reported(self._where):
            async with self._turn:
                rows: list[asyncpg.Record] = await self._connection.fetch(statement, *values, timeout=self._seconds)
                return rows

    async def tend(self) -> None:
        """Continue on another connection if this one is retired; if none is free at once, stay on it for now.

        What is held stays held, because the rows have the consumer's id and not its session's.
        """
        now = asyncio.get_running_loop().time()
        if now < self._move_at or not getattr(self._connection, "retired", False):
            return
        self._move_at = now + _MOVE_SECONDS
        try:
            fresh = await self._pool.acquire(timeout=_MOVE_WAIT_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return
        async with self._turn:
            retired, self._connection = self._connection, fresh
            retired.remove_termination_listener(self._on_terminated)
            try:
                await self._subscribe()
            finally:
                retired.terminate()

    async def close(self) -> None:
        """Restore the connection and give it back to its pool; see ``Link``."""
        with suppress(UnavailableError), reported(self._where):
            clean = False
            try:
                await self._unsubscribe()
                clean = True
            finally:
                if not clean:
                    # Other users of the pool must not get a connection with the consumer's setting, listener and lock.
                    self._connection.terminate()
                await self._pool.release(self._connection, timeout=self._seconds)

    async def _subscribe(self) -> None:
        self._connection.add_termination_listener(self._on_terminated)
        with reported(self._where):
            await self._connection.execute(_SET, timeout=self._seconds)
            await self._connection.execute("SELECT pg_advisory_lock_shared($1)", CONSUMER_LOCK, timeout=self._seconds)
            async with asyncio.timeout(self._seconds):
                await self._connection.add_listener(_CHANNEL, self._on_notified)

    async def _unsubscribe(self) -> None:
        self._connection.remove_termination_listener(self._on_terminated)
        if not self._connection.is_closed():
            # Not RESET ALL, because the settings of the pool must stay.
            async with asyncio.timeout(self._seconds):
                await self._connection.remove_listener(_CHANNEL, self._on_notified)
                await self._connection.execute(_RESET)
                await self._connection.execute("SELECT pg_advisory_unlock_all()")

    def _on_notified(self, *_: object) -> None:
        self._on_news()

    def _on_terminated(self, _: object) -> None:
        self._on_lost()


class PollingLink:
    """No session: any connection of a pool does for each statement. Its statements are planned anew each time."""

    poll_seconds = 0.1

    def __init__(self, pool: asyncpg.Pool, consumer_id: UUID, seconds: float, where: str) -> None:
        """Take a pool behind a pooler. ``seconds`` is the limit of every wait."""
        self._pool = pool
        self._id = consumer_id
        self._seconds = seconds
        self._where = where
        self._turn = asyncio.Lock()
        self._report_at = 0.0

    async def open(self, on_news: Callable[[], None], on_lost: Callable[[], None]) -> None:  # noqa: ARG002 - of Link
        """Show that the consumer lives; see ``Link``. Nobody tells of news, and a link without a session stays."""
        await self.tend()

    async def fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        """Execute a statement, one at a time, because two that update the same rows may deadlock; see ``Link``."""
        async with self._turn:
            return await fetch(self._pool, self._seconds, self._where, statement, *values)

    async def tend(self) -> None:
        """Show that the consumer lives, if that is due; see ``Link``."""
        now = asyncio.get_running_loop().time()
        if now >= self._report_at:
            await self.fetch(_REPORT, self._id)
            self._report_at = now + PRESENT_SECONDS / 3

    async def close(self) -> None:
        """Take back the row that shows that the consumer lives; see ``Link``."""
        with suppress(UnavailableError):
            await self.fetch("DELETE FROM queue_consumers WHERE id = $1", self._id)


async def fetch(
    pool: asyncpg.Pool, seconds: float, where: str, statement: str, *values: object
) -> list[asyncpg.Record]:
    """Execute a statement on any connection of ``pool``."""
    with reported(where):
        async with pool.acquire(timeout=seconds) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *values, timeout=seconds)
            return rows


@contextmanager
def reported(where: str) -> Iterator[None]:
    """Turn what asyncpg raises into an ``UnavailableError`` that begins with ``where``."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        late = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        raise UnavailableError("queue", f"{where}: {str(error) or late}") from error
