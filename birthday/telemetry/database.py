"""The figures of the whole database. Every process reports the same ones, so they must not be summed over processes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from birthday.clock import Clock
from birthday.telemetry.freshness import keep_fresh
from birthday.telemetry.metrics import Metrics

EVERY_SECONDS: Final = 10.0
SELDOM_SECONDS: Final = 300.0
"""For figures whose cost grows with the number of birthdays."""
DAY: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """Figures of the database server; None is not known. Counters begin at the last reset of its statistics.

    ``oldest_queued_at`` is when the oldest message in the queue entered it, None if the queue is empty.
    """

    commits: int
    rollbacks: int
    deadlocks: int
    buffer_cache_hit_ratio: float | None
    index_hit_ratio: float | None
    active_transactions: int | None
    active_queries: int | None
    replication_lag_seconds: float | None
    sessions: int
    max_connections: int
    oldest_queued_at: datetime | None


async def watch_database(
    read: Callable[[], Awaitable[DatabaseFigures]],
    count_greeted: Callable[[datetime, datetime], Awaitable[int]],
    metrics: Metrics,
    clock: Clock,
) -> None:
    """Refresh the figures until cancelled. While the database cannot be read, they are unknown.

    ``count_greeted`` counts the greeted users whose message was due after its first argument, and by its second.
    """
    figures = (
        metrics.database_commits,
        metrics.database_rollbacks,
        metrics.database_deadlocks,
        metrics.buffer_cache_hit_ratio,
        metrics.index_hit_ratio,
        metrics.active_transactions,
        metrics.database_active_queries,
        metrics.db_replication_lag_seconds,
        metrics.database_sessions,
        metrics.database_max_connections,
        metrics.queue_oldest_message_age_seconds,
    )

    async def refresh() -> None:
        row = await read()
        waiting = timedelta() if row.oldest_queued_at is None else clock.now() - row.oldest_queued_at
        values = (
            row.commits,
            row.rollbacks,
            row.deadlocks,
            row.buffer_cache_hit_ratio,
            row.index_hit_ratio,
            row.active_transactions,
            row.active_queries,
            row.replication_lag_seconds,
            row.sessions,
            row.max_connections,
            max(waiting.total_seconds(), 0),
        )
        for figure, value in zip(figures, values, strict=True):
            figure.set(value)

    async def refresh_users() -> None:
        now = clock.now()
        metrics.daily_active_users.set(await count_greeted(now - DAY, now))

    users = (metrics.daily_active_users,)
    async with asyncio.TaskGroup() as watching:
        watching.create_task(keep_fresh("database", refresh, figures, EVERY_SECONDS, metrics, clock))
        watching.create_task(keep_fresh("database", refresh_users, users, SELDOM_SECONDS, metrics, clock))
