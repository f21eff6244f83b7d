"""What is left in between: rescue what the queue lost, expire what is too late, remove what is old.

Before: messages that something should have happened to. After: they are in the queue again, ``expired`` with a log
line and a count, or gone because they are history.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
import structlog

from birthday.broker import Broker, QueueStats
from birthday.store.upkeep import expire, lock_lost, mark_rescued, remove_old
from birthday.store.users import purge_deleted_users
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

BATCH = 1000
GRACE = timedelta(minutes=1)
PATIENCE = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Janitor:
    """Tidies up. Any number may run: each skips the rows that another one holds."""

    pool: asyncpg.Pool
    broker: Broker
    metrics: Metrics
    catch_up: timedelta
    retention: timedelta

    async def recover_once(self, now: datetime) -> None:
        """Expire what is later than the catch-up window, then rescue what was in flight and got lost."""
        while await self._expire_batch(now) >= BATCH:
            pass
        stats = await self.broker.stats()
        while await self._rescue_batch(now, stats) >= BATCH:
            pass

    async def retire_once(self, now: datetime) -> int:
        """Remove finished messages and deleted users that are older than the retention; return how many messages."""
        removed = 0
        while batch := await remove_old(self.pool, now - self.retention, BATCH):
            removed += batch
        purged = 0
        while batch := await purge_deleted_users(self.pool, now - self.retention, BATCH):
            purged += batch
        if removed or purged:
            log.info("janitor.removed", messages=removed, deleted_users=purged)
        return removed

    async def _expire_batch(self, now: datetime) -> int:
        expired = await expire(self.pool, now - self.catch_up, now, BATCH)
        for message in expired:
            log.warning("message.expired", message_id=str(message.id), scheduled_at=message.scheduled_at.isoformat())
        self.metrics.messages_expired.inc(len(expired))
        return len(expired)

    async def _rescue_batch(self, now: datetime, stats: QueueStats) -> int:
        async with self.pool.acquire() as connection, connection.transaction():
            ids = await lock_lost(connection, now, GRACE, PATIENCE, BATCH, queue_is_empty=stats.ready == 0)
            if ids:
                await self.broker.publish(ids)
                await mark_rescued(connection, ids, now)
        if ids:
            self.metrics.messages_rescued.inc(len(ids))
            log.warning("janitor.rescued", messages=len(ids))
        return len(ids)
