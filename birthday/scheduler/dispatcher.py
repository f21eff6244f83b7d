"""Step 2, dispatch: publish what is due, at its instant.

Before: ``scheduled`` messages whose instant comes. After: they are ``queued``, which commits only once the broker has
confirmed them. A crash in between leaves them ``scheduled`` with a copy in the queue: the next dispatcher publishes
them again, and the claim of the worker lets only one copy through. The dispatcher looks ahead, so that it wakes at the
next instant, not at the next minute.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
import structlog

from birthday.broker import Broker
from birthday.core.message import BIRTHDAY
from birthday.pauses import Pauses
from birthday.store.messages import lock_due, look_ahead, mark_queued
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

BATCH = 500


@dataclass(frozen=True, slots=True)
class Dispatched:
    """How many messages were published, and when the next one falls due, if one is planned."""

    published: int
    next_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Publishes due messages. Any number may run: each skips the rows that another one holds."""

    pool: asyncpg.Pool
    broker: Broker
    metrics: Metrics
    catch_up: timedelta
    pauses: Pauses

    async def dispatch_once(self, now: datetime) -> Dispatched:
        """Publish everything that is due at ``now``, what must arrive soonest first, and say what comes next.

        What is later than the catch-up window is left to the janitor, which expires it. Nothing is published during a
        pause.
        """
        if self.pauses.is_paused(BIRTHDAY):
            return Dispatched(0, None)
        late = now - self.catch_up
        due = await look_ahead(self.pool, now, late)
        published = 0
        if due.last_deadline is not None:
            while batch := await self._dispatch_batch(now, late, due.last_deadline):
                published += batch
                if self.pauses.is_paused(BIRTHDAY):
                    break
        if published:
            log.info("dispatcher.published", messages=published)
        return Dispatched(published, due.next_due_at)

    async def _dispatch_batch(self, now: datetime, late: datetime, last_deadline: datetime) -> int:
        async with self.pool.acquire() as connection, connection.transaction():
            ids = await lock_due(connection, now, late, last_deadline, BATCH)
            if ids:
                await self.broker.publish(ids)
                await mark_queued(connection, ids, now)
        self.metrics.messages_queued.inc(len(ids))
        return len(ids)
