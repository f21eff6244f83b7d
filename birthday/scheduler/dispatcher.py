"""Step 2, dispatch: publish what is due, and what soon falls due.

Before: ``scheduled`` messages that fall due. After: they are ``queued``, which is committed only after the broker has
confirmed them. A crash in between leaves them ``scheduled``, with a copy in the queue. Then the next dispatcher
publishes them again, and the worker's claim lets only one copy through. The dispatcher reads when the next message
falls due, so that it wakes some seconds before: then the queue holds a wave before its instant comes, and the workers,
which wait for that instant, have the machine to themselves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import structlog

from birthday.broker import Broker
from birthday.operations.pauses import Pauses
from birthday.scheduler.refused import mark_each
from birthday.store.connection import DATABASE_ERRORS, Connection, is_outage, stay_cancelled
from birthday.store.dispatching import Due, lock_due, lock_next, look_ahead, mark_queued, read_trace_contexts
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing

log = structlog.get_logger()

BATCH = 500
SLOTS = 2
"""How many batches are under way at a time: one is at the broker, while the database stores or finds the other."""
TICK_LIMIT = 20 * BATCH
"""How many messages one tick publishes. The next tick follows at once, and includes what has fallen due meanwhile."""
AHEAD_LIMIT = 4 * BATCH
"""How many messages one tick publishes that are not due yet: few, because meanwhile nothing else is published."""
AHEAD_PAUSE = timedelta(milliseconds=100)
"""How long to wait after all that soon falls due is published, so that the next tick has more than a few messages."""

Batch: TypeAlias = Sequence[tuple[UUID, datetime | None]]
"""Messages and, for those that are not due yet, when they are."""
Find: TypeAlias = Callable[[Connection, int, Sequence[str]], Awaitable[Batch]]
"""Locks the next batch of at most so many messages, none of the paused types, within a transaction."""


@dataclass(frozen=True, slots=True)
class Dispatched:
    """How many messages were published, and when to come again, if another one is planned."""

    published: int
    next_at: datetime | None


@dataclass(slots=True)
class Dispatcher:
    """Publishes messages. Any number may run, because each skips the rows that another one holds.

    ``ahead`` is how long before its instant a message may be published; 0 publishes nothing that is not due. After a
    tick that was full it keeps the last deadline of what is due: finding that reads the whole backlog.
    """

    pool: asyncpg.Pool
    broker: Broker
    metrics: Metrics
    catch_up: timedelta
    pauses: Pauses
    tracing: Tracing = NO_TRACING
    ahead: timedelta = timedelta()
    _kept_deadline: datetime | None = field(default=None, init=False)

    async def dispatch_once(self, now: datetime) -> Dispatched:
        """Publish what is due at ``now``, in order of deadline; then what falls due within ``ahead``, in that order.

        ``next_at`` is ``now`` if this tick could not publish all of it. Messages later than the catch-up window are
        left to the janitor, which expires them. Nothing is published of types that are paused.
        """
        if self.pauses.held:
            return Dispatched(0, None)
        late, until = now - self.catch_up, now + self.ahead
        # Messages that fell due since then and end later wait for a tick of their own.
        due = Due(self._kept_deadline, now) if self._kept_deadline else await look_ahead(self.pool, now, late)
        self._kept_deadline = None
        published = 0
        if (deadline := due.last_deadline) is not None:

            async def find_due(connection: Connection, most: int, paused: Sequence[str]) -> Batch:
                return [(each, None) for each in await lock_due(connection, now, late, deadline, most, paused)]

            published = await self._publish(find_due, TICK_LIMIT, now)
            if published == TICK_LIMIT:
                self._kept_deadline = deadline
                return Dispatched(published, now)
        if not self.ahead or due.next_due_at is None or due.next_due_at > until:
            return Dispatched(published, due.next_due_at and due.next_due_at - self.ahead)

        async def find_next(connection: Connection, most: int, paused: Sequence[str]) -> Batch:
            return await lock_next(connection, now, until, most, paused)

        early = await self._publish(find_next, AHEAD_LIMIT, now)
        next_at = min(due.next_due_at, now + AHEAD_PAUSE) if early else due.next_due_at
        return Dispatched(published + early, now if early == AHEAD_LIMIT else next_at)

    async def _publish(self, find: Find, most: int, now: datetime) -> int:
        """Publish batches in ``SLOTS`` transactions at a time until one is not full; return how many messages.

        ``find`` locks the next batch. The slots take turns, so that batches are published in the order in which they
        were found. Publishing stops after ``most`` messages, and when a pause begins or ends.
        """
        looking, publishing = asyncio.Lock(), asyncio.Lock()
        left = most
        paused = self.pauses.paused

        async def dispatch_batches() -> int:
            nonlocal left
            count = 0
            while True:
                ids: list[UUID] = []
                queued = False
                try:
                    async with self.pool.acquire() as connection, connection.transaction():
                        async with looking:
                            batch = await find(connection, min(BATCH, left), paused) if left else []
                            left = left - len(batch) if len(batch) == BATCH else 0
                        ids = [each for each, _ in batch]
                        due_at = [instant for _, instant in batch if instant]
                        contexts = await read_trace_contexts(connection, ids) if self.tracing.enabled else ()
                        async with publishing:
                            if not ids or self.pauses.paused != paused:
                                return count
                            with self.tracing.send(contexts):
                                await self.broker.publish(ids, due_at=due_at)
                            queued = True
                        await mark_queued(connection, ids, now)
                except DATABASE_ERRORS as error:
                    stay_cancelled()
                    if not queued or is_outage(error):
                        raise
                    ids = await mark_each(self.pool, "dispatch", ids, mark_queued, now, self.metrics)
                self.metrics.messages_queued.inc(len(ids))
                count += len(ids)

        # If one slot fails, the other one still finishes its batch.
        slots = await asyncio.gather(*(dispatch_batches() for _ in range(SLOTS)), return_exceptions=True)
        for failure in slots:
            if isinstance(failure, BaseException):
                raise failure
        published = sum(count for count in slots if isinstance(count, int))
        if published:
            log.info("dispatcher.published", messages=published)
        return published
