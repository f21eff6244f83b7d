"""Step 2, dispatch: publish what is due, at its instant.

Before: ``scheduled`` messages that fall due. After: they are ``queued``, which is committed only after the broker has
confirmed them. A crash in between leaves them ``scheduled``, with a copy in the queue. Then the next dispatcher
publishes them again, and the worker's claim lets only one copy through. The dispatcher reads when the next message
falls due, so that it wakes at that instant.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from birthday.broker import Broker
from birthday.operations.pauses import Pauses
from birthday.scheduler.refused import mark_each
from birthday.store.connection import DATABASE_ERRORS, is_outage, stay_cancelled
from birthday.store.dispatching import Due, lock_due, look_ahead, mark_queued, read_trace_contexts
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing

log = structlog.get_logger()

BATCH = 500
SLOTS = 2
"""How many batches are under way at a time: one is at the broker, while the database stores or finds the other."""
TICK_LIMIT = 20 * BATCH
"""How many messages one tick publishes. The next tick follows at once, and includes what has fallen due meanwhile."""


@dataclass(frozen=True, slots=True)
class Dispatched:
    """How many messages were published, and when to come again: when the next one falls due, if one is planned."""

    published: int
    next_due_at: datetime | None


@dataclass(slots=True)
class Dispatcher:
    """Publishes due messages. Any number may run, because each skips the rows that another one holds.

    After a tick that was full it keeps the last deadline of what is due: finding that reads the whole backlog.
    """

    pool: asyncpg.Pool
    broker: Broker
    metrics: Metrics
    catch_up: timedelta
    pauses: Pauses
    tracing: Tracing = NO_TRACING
    _kept_deadline: datetime | None = field(default=None, init=False)

    async def dispatch_once(self, now: datetime) -> Dispatched:
        """Publish what is due at ``now``, in order of deadline; return how many, and when the next one falls due.

        ``next_due_at`` is ``now`` if more may be due than this tick has published. Messages later than the catch-up
        window are left to the janitor, which expires them. Nothing is published of types that are paused.
        """
        if self.pauses.held:
            return Dispatched(0, None)
        late = now - self.catch_up
        # Messages that fell due since then and end later wait for a tick of their own.
        due = Due(self._kept_deadline, now) if self._kept_deadline else await look_ahead(self.pool, now, late)
        self._kept_deadline = None
        published = 0
        if due.last_deadline is not None:
            published = await self._publish_due(now, late, due.last_deadline)
        if published:
            log.info("dispatcher.published", messages=published)
        if published < TICK_LIMIT:
            return Dispatched(published, due.next_due_at)
        self._kept_deadline = due.last_deadline
        return Dispatched(published, now)

    async def _publish_due(self, now: datetime, late: datetime, last_deadline: datetime) -> int:
        """Publish batches in ``SLOTS`` transactions at a time until one is not full; return how many messages.

        The slots take turns, so that batches are published in the order in which they were found. Publishing stops when
        a pause begins or ends.
        """
        looking, publishing = asyncio.Lock(), asyncio.Lock()
        left = TICK_LIMIT
        paused = self.pauses.paused

        async def dispatch_batches() -> int:
            nonlocal left
            published = 0
            while True:
                ids: list[UUID] = []
                queued = False
                try:
                    async with self.pool.acquire() as connection, connection.transaction():
                        async with looking:
                            most = min(BATCH, left)
                            ids = await lock_due(connection, now, late, last_deadline, most, paused) if left else []
                            left = left - len(ids) if len(ids) == BATCH else 0
                        contexts = await read_trace_contexts(connection, ids) if self.tracing.enabled else ()
                        async with publishing:
                            if not ids or self.pauses.paused != paused:
                                return published
                            with self.tracing.send(contexts):
                                await self.broker.publish(ids)
                            queued = True
                        await mark_queued(connection, ids, now)
                except DATABASE_ERRORS as error:
                    stay_cancelled()
                    if not queued or is_outage(error):
                        raise
                    ids = await mark_each(self.pool, "dispatch", ids, mark_queued, now, self.metrics)
                self.metrics.messages_queued.inc(len(ids))
                published += len(ids)

        # If one slot fails, the other one still finishes its batch.
        slots = await asyncio.gather(*(dispatch_batches() for _ in range(SLOTS)), return_exceptions=True)
        for failure in slots:
            if isinstance(failure, BaseException):
                raise failure
        return sum(count for count in slots if isinstance(count, int))
