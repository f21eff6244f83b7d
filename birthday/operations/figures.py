"""The figures of the database and the queue, read at intervals. As soon as a source does not answer, they are unknown.

Every process reads them, so that each can be scraped alone. They are the same everywhere, so they must not be summed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final, TypeAlias

import asyncpg
import structlog

from birthday.broker import Broker
from birthday.clock import CheckedClock, Clock
from birthday.errors import UnavailableError
from birthday.store.statistics import Replication, count_greeted, count_overdue, read_figures
from birthday.telemetry.figures import Figure
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

Values: TypeAlias = Mapping[Figure, float | None]

QUEUE_SECONDS: Final = 5.0
DATABASE_SECONDS: Final = 10.0
SELDOM_SECONDS: Final = 300.0
"""For figures whose cost grows with the number of birthdays."""
PATIENCE_SECONDS: Final = 2.0
"""If an answer takes longer, the figures become unknown. The answer is still waited for."""
DAY: Final = timedelta(hours=24)
_ASYNCHRONOUS: Final[Mapping[Replication, float | None]] = {Replication.ASYNCHRONOUS: 1.0, Replication.UNKNOWN: None}


async def watch_queue(broker: Broker, metrics: Metrics, clock: Clock) -> None:
    """Refresh the counts of queue messages until cancelled."""

    async def read() -> Values:
        stats = await broker.stats()
        return {
            metrics.queue_depth: stats.ready,
            metrics.unacked_messages_count: stats.unacked,
            metrics.queue_delayed: stats.delayed,
            metrics.dlq_depth: stats.dead,
            metrics.consumer_count: stats.consumers,
        }

    await _keep_fresh("queue", read, QUEUE_SECONDS, metrics, clock)


async def watch_database(pool: asyncpg.Pool, metrics: Metrics, clock: Clock) -> None:
    """Refresh the statistics of the server and the number of users greeted until cancelled."""

    async def read() -> Values:
        row = await read_figures(pool)
        now = clock.now()
        waiting, held_back = now - (row.oldest_queued_at or now), now - (row.oldest_unfed_at or now)
        return {
            metrics.database_commits: row.commits,
            metrics.database_rollbacks: row.rollbacks,
            metrics.database_deadlocks: row.deadlocks,
            metrics.buffer_cache_hit_ratio: row.buffer_cache_hit_ratio,
            metrics.index_hit_ratio: row.index_hit_ratio,
            metrics.active_transactions: row.active_transactions,
            metrics.database_active_queries: row.active_queries,
            metrics.db_replication_lag_seconds: row.replication_lag_seconds,
            metrics.db_replication_asynchronous: _ASYNCHRONOUS.get(row.replication, 0.0),
            metrics.database_sessions: row.sessions,
            metrics.database_max_connections: row.max_connections,
            metrics.queue_oldest_message_age_seconds: max(waiting.total_seconds(), 0),
            metrics.feed_lag_seconds: max(held_back.total_seconds(), 0),
        }

    async def read_users() -> Values:
        now = clock.now()
        return {metrics.daily_active_users: await count_greeted(pool, now - DAY, now)}

    async with asyncio.TaskGroup() as watching:
        watching.create_task(_keep_fresh("database", read, DATABASE_SECONDS, metrics, clock))
        watching.create_task(_keep_fresh("database", read_users, SELDOM_SECONDS, metrics, clock))


async def watch_overdue(pool: asyncpg.Pool, metrics: Metrics, clock: CheckedClock) -> None:
    """Refresh until cancelled how many messages are due and not delivered. While the clock is wrong, it is unknown."""

    async def read() -> Values:
        if clock.fault is not None:
            raise UnavailableError("clock", clock.fault)
        now = clock.now()
        overdue = await count_overdue(pool, now)
        return {
            metrics.messages_overdue: overdue.messages,
            metrics.messages_overdue_oldest_age_seconds: overdue.oldest_seconds(now),
        }

    await _keep_fresh("database", read, DATABASE_SECONDS, metrics, clock)


async def _keep_fresh(
    collector: str, read: Callable[[], Awaitable[Values]], every_seconds: float, metrics: Metrics, clock: Clock
) -> None:
    """Set the figures that ``read`` returns, at intervals, until cancelled. ``read`` must have a time limit of its own.

    As soon as it fails or is late, its figures become unknown, and that is counted.
    """
    known: Values = {}

    def forget(reason: str | UnavailableError) -> None:
        metrics.collector_errors.labels(collector).inc()
        log.debug("telemetry.unavailable", collector=collector, error=reason)
        for figure in known:
            figure.set(None)

    while True:
        reading = asyncio.ensure_future(read())
        try:
            _, late = await asyncio.wait({reading}, timeout=PATIENCE_SECONDS)
            if late:
                forget(f"no answer within {PATIENCE_SECONDS:g} s")
            try:
                known = await reading
            except UnavailableError as error:
                if not late:
                    forget(error)
            else:
                for figure, value in known.items():
                    figure.set(value)
        finally:
            reading.cancel()
        await clock.sleep(every_seconds)
