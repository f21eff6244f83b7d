"""Tidy up: rescue what the queue has lost, expire what is too late, remove what is old, audit, and forecast.

Before: messages that were left in between two steps, and old ones. After: they are in the queue again, ``expired`` with
a log line and a count, or removed. Audit and forecast report; the audit also notes what rescue would not find.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import asyncpg
import structlog

from birthday.broker import Broker, QueueStats
from birthday.core.audit import BROKEN, Finding
from birthday.core.forecast import drain_seconds
from birthday.core.message import ON_TIME
from birthday.operations.audit import Auditor
from birthday.operations.feed import keep_order
from birthday.operations.forecast import Forecaster
from birthday.operations.pauses import Pauses
from birthday.scheduler.refused import fail_each, mark_each
from birthday.store.changes import remove_old_changes
from birthday.store.connection import DATABASE_ERRORS, is_outage, stay_cancelled
from birthday.store.feed import remove_old_outcomes
from birthday.store.idempotency import remove_old_answers
from birthday.store.refusals import Sifting
from birthday.store.upkeep import (
    Expired,
    expire,
    forget_greetings,
    lock_lost,
    mark_rescued,
    may_be_lost,
    mend_flight,
    read_late,
    remove_old,
)
from birthday.store.users import purge_deleted_users
from birthday.store.watermarks import request_sweep
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

BATCH = 1000
REST = 9
"""How many times as long as a batch retention rests after it: it takes a tenth of the time of a connection."""
GRACE = timedelta(minutes=1)
PATIENCE = timedelta(minutes=15)

AHEAD = timedelta(hours=24)
"""How far the forecast looks ahead: far enough to add workers, and each hour of the day is in it once."""


@dataclass(frozen=True, slots=True)
class Janitor:
    """Tidies up. Any number may run, because each skips the rows that another one holds."""

    pool: asyncpg.Pool
    broker: Broker
    metrics: Metrics
    catch_up: timedelta
    retention: timedelta
    pauses: Pauses
    auditor: Auditor
    forecaster: Forecaster

    async def recover_once(self, now: datetime) -> None:
        """Expire what is later than the catch-up window, then rescue what was in flight and got lost.

        In between, remove the answers to requests with an Idempotency-Key of more than a day ago.

        Nothing is rescued of a type that is paused, because workers take nothing of it then. Nothing is rescued shortly
        after the pause either, because workers cannot take the whole queue at once.

        Nothing is rescued either while as many deliveries wait in the queue as messages are in flight, because then
        nothing shows that one is missing. Otherwise a queue from which nothing is taken would get a copy of each every
        quarter of an hour. What is missing all the same is rescued once the workers have taken the surplus. During a
        pause they cannot take all of it, so this does not hold then.
        """
        await keep_order(self.pool)
        while await self._expire_batch(now) >= BATCH:
            pass
        while await remove_old_answers(self.pool, now, BATCH) >= BATCH:
            pass
        stats = await self.broker.stats()
        wait = _patience_with(stats)
        resumed = [one for one in self.pauses.types if self.pauses.resumed_since(one, now - wait)]
        resting = {*self.pauses.paused, *resumed}
        if not resting and not await may_be_lost(self.pool, now - wait, stats.ready):
            return
        while not resting.issuperset(self.pauses.types) and await self._rescue_batch(now, wait, resting) >= BATCH:
            pass

    async def retire_once(self, now: datetime) -> int:
        """Remove finished messages, deleted users and changes that are older than the retention.

        Returns:
            How many messages were removed.
        """
        removed = await self._remove_all(remove_old, now - self.retention)
        await self._remove_all(remove_old_outcomes, now - self.retention)
        purged = await self._remove_all(purge_deleted_users, now - self.retention)
        forgotten = await self._remove_all(remove_old_changes, now - self.retention)
        await self._remove_all(forget_greetings, now)
        if removed or purged or forgotten:
            log.info("janitor.removed", messages=removed, deleted_users=purged, changes=forgotten)
        return removed

    async def audit_once(self, now: datetime) -> None:
        """Audit the birthdays of the last catch-up window, and show the findings as gauges.

        After that, whatever is in flight and would not be found by rescue is noted.
        """
        audit = await self.auditor.audit(now - self.catch_up, now, now)
        self.metrics.audit_birthdays.labels("expected").set(audit.expected)
        for finding in Finding:
            self.metrics.audit_birthdays.labels(finding).set(audit.counts[finding])
        if audit.broken:
            log.error("audit.broken", **{str(finding): audit.counts[finding] for finding in BROKEN})
        mended = await mend_flight(self.pool, now - self.catch_up, now, now - PATIENCE)
        if any(mended):
            log.warning("janitor.flight_mended", noted=mended.noted, removed=mended.removed)

    async def forecast_once(self, now: datetime) -> None:
        """Show as gauges what falls due within the next day, and how long the largest minute takes to deliver."""
        forecast = await self.forecaster.forecast(now, now + AHEAD)
        rate = await self.forecaster.measure_rate(now)
        for hour, messages in forecast.by_hour_of_day().items():
            self.metrics.forecast_messages.labels(f"{hour:02}").set(messages)
        peak = forecast.largest_minute()
        seconds = drain_seconds(peak, rate)
        self.metrics.forecast_largest_minute_messages.set(peak.messages if peak else 0)
        self.metrics.forecast_largest_minute_time.set(peak.at.timestamp() if peak else None)
        self.metrics.forecast_delivery_rate.set(rate.per_second if rate else None)
        self.metrics.forecast_drain_seconds.set(seconds)
        if peak and seconds is not None and seconds > ON_TIME.total_seconds():
            at = peak.at.isoformat()
            log.warning("forecast.late", at=at, messages=peak.messages, drain_seconds=round(seconds))

    async def _remove_all(
        self, remove: Callable[[asyncpg.Pool, datetime, int], Awaitable[int]], before: datetime
    ) -> int:
        """Remove batch by batch, and rest after each full one, so that deliveries go on at nearly their full rate."""
        loop = asyncio.get_running_loop()
        removed = 0
        while True:
            started = loop.time()
            batch = await remove(self.pool, before, BATCH)
            removed += batch
            if not batch:
                return removed
            if batch >= BATCH:
                await asyncio.sleep(REST * (loop.time() - started))

    async def _expire_batch(self, now: datetime) -> int:
        ended = await self._expire(now - self.catch_up, now)
        expired = [message for message in ended if not message.moved]
        for message in expired:
            log.warning("message.expired", message_id=str(message.id), scheduled_at=message.scheduled_at.isoformat())
        self.metrics.messages_expired.inc(len(expired))
        self.metrics.birthdays_processed.inc(len(expired))
        if len(ended) > len(expired):
            # The user moved while the message was being sent, so none is planned for the new date yet.
            await request_sweep(self.pool)
            self.metrics.messages_cancelled.inc(len(ended) - len(expired))
            for message in ended:
                if message.moved:
                    log.info("message.cancelled", message_id=str(message.id), reason="the user has moved")
        return len(ended)

    async def _expire(self, late: datetime, now: datetime) -> Sequence[Expired]:
        try:
            return await expire(self.pool, late, now, BATCH)
        except DATABASE_ERRORS as error:
            stay_cancelled()
            if is_outage(error):
                raise
        expiring = Sifting("expire", await read_late(self.pool, late, BATCH), partial(self._expire_these, late, now))
        await expiring.run()
        await fail_each(self.pool, expiring.refused, now, self.metrics)
        return expiring.results

    async def _expire_these(self, late: datetime, now: datetime, ids: Sequence[UUID]) -> Sequence[Expired]:
        return await expire(self.pool, late, now, BATCH, ids)

    async def _rescue_batch(self, now: datetime, wait: timedelta, resting: Collection[str]) -> int:
        ids: list[UUID] = []
        published = False
        try:
            async with self.pool.acquire() as connection, connection.transaction():
                ids = await lock_lost(connection, now, wait, BATCH, resting)
                if ids:
                    await self.broker.publish(ids)
                    published = True
                    await mark_rescued(connection, ids, now)
        except DATABASE_ERRORS as error:
            stay_cancelled()
            if not published or is_outage(error):
                raise
            ids = await mark_each(self.pool, "rescue", ids, mark_rescued, now, self.metrics)
        if ids:
            self.metrics.messages_rescued.inc(len(ids))
            log.warning("janitor.rescued", messages=len(ids))
        return len(ids)


def _patience_with(stats: QueueStats) -> timedelta:
    """Return how long a message may stay untaken in the queue before it counts as lost.

    If the queue holds messages, it may just be long. If it is empty, consumers that wait for the message service may
    hold its messages; RabbitMQ does not say how many. Copies of those do no harm, and there are no more than consumers
    may hold: then the queue is not empty.
    """
    return PATIENCE if stats.ready else GRACE
