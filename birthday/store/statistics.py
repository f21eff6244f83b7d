"""What the database says about itself and its load, for the metrics.

Nothing here needs a privilege. But PostgreSQL hides the activity of other roles from a role that is not a member of
``pg_monitor``. A hidden figure is None, because hidden sessions must not count as idle ones.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import asyncpg

from birthday.errors import UnavailableError
from birthday.store.connection import Connection, borrow
from birthday.store.sessions import TIMEOUTS


class Replication(StrEnum):
    """Whether commits wait for a replica. If not, a failover forgets the last ones.

    NONE          there are no replicas
    SYNCHRONOUS   commits wait
    ASYNCHRONOUS  there are replicas, and commits do not wait for one
    UNKNOWN       commits do not wait, and our role may not see what receives the log: replicas or only a backup
    """

    NONE = "none"
    SYNCHRONOUS = "synchronous"
    ASYNCHRONOUS = "asynchronous"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """Figures of the database server; None is not known. Counters begin at the last reset of its statistics.

    ``oldest_queued_at`` is when the oldest message in the queue entered it, None if the queue is empty.
    ``oldest_unfed_at`` is the time of the first outcome that a running transaction keeps out of the feed.
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
    oldest_unfed_at: datetime | None
    replication: Replication


@dataclass(frozen=True, slots=True)
class Limits:
    """What others have limited: the connections of the server, and the duration of statements, by setting.

    ``timeouts`` are set for our role, the database or the server; ``in_force`` are those that this session obeys.
    """

    sessions: int
    max_connections: int
    reserved: int
    timeouts: Mapping[str, str]
    in_force: Collection[str]


@dataclass(frozen=True, slots=True)
class Overdue:
    """How many messages are due and not delivered, and since when the oldest of them is due; None without any."""

    messages: int
    oldest_due_at: datetime | None

    def oldest_seconds(self, now: datetime) -> float:
        """Return how many seconds the oldest has been due; 0 if there is none."""
        return 0.0 if self.oldest_due_at is None else (now - self.oldest_due_at).total_seconds()


async def read_figures(pool: asyncpg.Pool) -> DatabaseFigures:
    """Read the server's statistics."""
    async with _asking(pool, "the statistics cannot be read") as connection:
        [row] = await connection.fetch(
            """
            SELECT xact_commit AS commits, xact_rollback AS rollbacks, deadlocks,
                   blks_hit::float8 / nullif(blks_hit + blks_read, 0) AS buffer_cache_hit_ratio,
                   (SELECT (sum(idx_blks_hit) / nullif(sum(idx_blks_hit + idx_blks_read), 0))::float8
                    FROM pg_statio_user_indexes) AS index_hit_ratio,
                   CASE WHEN hidden = 0 THEN active_transactions END AS active_transactions,
                   CASE WHEN hidden = 0 THEN active_queries END AS active_queries,
                   -- A replica whose state is hidden has a lag that is hidden as well.
                   (SELECT CASE WHEN count(*) = count(state)
                                THEN coalesce(extract(epoch FROM max(replay_lag)), 0)::float8 END
                    FROM pg_stat_replication) AS replication_lag_seconds,
                   -- Anybody may read these counts, also those of other databases.
                   (SELECT sum(numbackends)::int FROM pg_stat_database) AS sessions,
                   current_setting('max_connections')::int AS max_connections,
                   (SELECT queued_at FROM messages_in_flight WHERE status = 'queued'
                    ORDER BY queued_at LIMIT 1) AS oldest_queued_at,
                   (SELECT stored_at FROM outcomes WHERE position >= feed_end()
                    ORDER BY position LIMIT 1) AS oldest_unfed_at
            FROM pg_stat_database,
                 -- What is hidden has a user and no type. Only background workers have no user.
                 (SELECT count(xact_start) AS active_transactions,
                         count(*) FILTER (WHERE state = 'active') AS active_queries,
                         count(*) FILTER (WHERE backend_type IS NULL) AS hidden
                  FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
                    AND coalesce(backend_type, 'client backend') = 'client backend') AS sessions
            WHERE datname = current_database()
            """
        )
        return DatabaseFigures(**dict(row), replication=await read_replication(connection))


async def read_replication(connection: Connection) -> Replication:
    """Read whether commits of this session wait for a replica. Backups and subscribers are no replicas."""
    [row] = await connection.fetch(
        """
        SELECT current_setting('synchronous_commit') NOT IN ('off', 'local')
                   AND current_setting('synchronous_standby_names') <> '' AS waits,
               count(*) FILTER (WHERE state IN ('catchup', 'streaming') AND application_name <> 'pg_receivewal'
                   AND NOT EXISTS (SELECT FROM pg_replication_slots AS slot
                                   WHERE slot.active_pid = sender.pid AND slot.slot_type = 'logical')) AS replicas,
               count(*) FILTER (WHERE state IS NULL) AS hidden
        FROM pg_stat_replication AS sender
        """
    )
    if row["waits"]:
        return Replication.SYNCHRONOUS
    if row["replicas"]:
        return Replication.ASYNCHRONOUS
    return Replication.UNKNOWN if row["hidden"] else Replication.NONE


async def read_limits(connection: Connection) -> Limits:
    """Read the limits. What was set for the role or the database is seen at once, not only by the next session."""
    [row] = await connection.fetch(
        """
        SELECT (SELECT sum(numbackends)::int FROM pg_stat_database) AS sessions,
               current_setting('max_connections')::int AS max_connections,
               current_setting('superuser_reserved_connections')::int AS reserved,
               array_agg(name || '=' || reset_val || unit) FILTER (WHERE reset_val <> '0') AS at_connection,
               array_agg(name) FILTER (WHERE setting <> '0') AS in_force,
               (SELECT array_agg(setting ORDER BY setrole, setdatabase)
                FROM pg_db_role_setting, unnest(setconfig) AS setting
                WHERE setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
                  AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                  AND split_part(setting, '=', 1) = ANY ($1)) AS assigned
        FROM pg_settings WHERE name = ANY ($1) AND source <> 'client'
        """,
        TIMEOUTS,
    )
    found = dict(text.split("=", 1) for text in (*(row["at_connection"] or ()), *(row["assigned"] or ())))
    timeouts = {name: value for name, value in found.items() if value != "0"}
    return Limits(row["sessions"], row["max_connections"], row["reserved"], timeouts, row["in_force"] or ())


async def count_greeted(pool: asyncpg.Pool, after: datetime, until: datetime) -> int:
    """Count the delivered messages that fell due in ``(after, until]``."""
    async with _asking(pool, "the messages cannot be counted") as connection:
        count: int = await connection.fetchval(
            """
            SELECT count(*) FROM message_logs
            WHERE scheduled_at > $1 AND scheduled_at <= $2 AND status = 'delivered'
            """,
            after,
            until,
        )
    return count


async def count_overdue(pool: asyncpg.Pool, now: datetime) -> Overdue:
    """Count the messages that are due and not delivered.

    Each half of the query reads an index and stops at 100,000 rows. After an outage there may be millions, every
    process asks this often, and the exact number does not matter then. Beyond that limit, the oldest due instant is
    still exact for messages that are not queued yet.
    """
    async with _asking(pool, "the messages cannot be counted") as connection:
        [row] = await connection.fetch(
            """
            SELECT count(*) AS messages, min(due_at) AS oldest_due_at FROM (
                (SELECT scheduled_at AS due_at FROM message_logs
                 WHERE phase = 'scheduled' AND status = 'scheduled' AND scheduled_at <= $1
                 ORDER BY scheduled_at LIMIT 100000)
                UNION ALL
                (SELECT due_at FROM in_flight ORDER BY queued_at LIMIT 100000)
            ) AS waiting WHERE due_at <= $1
            """,
            now,
        )
    return Overdue(*row)


@asynccontextmanager
async def _asking(pool: asyncpg.Pool, failure: str) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
    """Lend a connection. If the database refuses a statement, that is an ``UnavailableError`` that says ``failure``."""
    try:
        async with borrow(pool) as connection:
            yield connection
    except asyncpg.PostgresError as error:
        raise UnavailableError("database", f"{failure}: {error}") from error
