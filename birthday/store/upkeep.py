"""What the janitor does to messages: rescue, expire, remove. Small batches, so that the hot path never waits."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from birthday.store.connection import Connection, rows_changed
from birthday.store.watermarks import PLANNED, lock_watermark

RESCUE_SECONDS: Final = 120
"""How long a look for lost messages may take: millions may be in flight."""


async def may_be_lost(pool: asyncpg.Pool, published_before: datetime, ready: int) -> bool:
    """Say whether a message that was published so early is in flight, and more are in flight than ``ready``.

    Reads one row if none was published so early, and otherwise no more than ``ready``.
    """
    may_be: bool = await pool.fetchval(
        """
        SELECT EXISTS (SELECT FROM in_flight WHERE queued_at <= $1) AND EXISTS (SELECT FROM in_flight OFFSET $2)
        """,
        published_before,
        ready,
    )
    return may_be


async def lock_lost(
    connection: Connection, now: datetime, wait: timedelta, limit: int, resting: Collection[str]
) -> list[UUID]:
    """Lock and return messages in flight that no worker has taken for ``wait``: the queue may have lost them.

    Messages of the types that are ``resting`` are left out. Of those that have been in the queue for longest, the ones
    whose local date ends soonest go first. Call it within a transaction.
    """
    # A plan that was made while there were no messages would read all of them for each.
    await connection.execute("SET LOCAL enable_seqscan = off")
    rows = await connection.fetch(
        """
        SELECT id FROM message_logs
        WHERE id = ANY(ARRAY(
                  SELECT id FROM messages_in_flight
                  WHERE queued_at <= $1 AND updated_at <= $1
                    AND (status = 'queued'
                         OR status = 'retrying' AND next_attempt_at <= $1
                         OR status = 'sending' AND lease_until <= clock_timestamp())
                    AND message_type <> ALL($3::text[])
                  ORDER BY queued_at LIMIT 10 * $2))
          -- Whoever changes it meanwhile has not lost it.
          AND updated_at <= $1 AND status IN ('queued', 'retrying', 'sending')
        ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED
        """,
        now - wait,
        limit,
        list(resting),
        timeout=RESCUE_SECONDS,
    )
    return [row["id"] for row in rows]


async def mark_rescued(connection: Connection | asyncpg.Pool, ids: Sequence[UUID], now: datetime) -> None:
    """Record that those of ``ids`` that are in flight are in the queue again; their status stays.

    The caller's transaction may hold them, but need not.
    """
    await connection.execute(
        """
        WITH rescued AS (
            UPDATE message_logs SET queued_at = $2, updated_at = $2
            WHERE id = ANY($1::uuid[]) AND status IN ('queued', 'sending', 'retrying')
            RETURNING id
        )
        UPDATE in_flight f SET queued_at = $2 FROM rescued WHERE f.id = rescued.id
        """,
        ids,
        now,
    )


@dataclass(frozen=True, slots=True)
class Expired:
    """An expired message, and when it was due; or a cancelled one, whose user has ``moved`` to another date or zone."""

    id: UUID
    scheduled_at: datetime
    moved: bool


async def read_late(pool: asyncpg.Pool, late: datetime, limit: int) -> list[UUID]:
    """Return messages that ``expire`` would expire: up to ``limit`` unpublished ones, and as many in the queue."""
    rows = await pool.fetch(
        """
        (SELECT id FROM message_logs WHERE phase = 'scheduled' AND status = 'scheduled' AND scheduled_at <= $1
         ORDER BY scheduled_at LIMIT $2)
        UNION ALL
        (SELECT id FROM messages_in_flight WHERE status IN ('queued', 'retrying') AND due_at <= $1
         ORDER BY queued_at LIMIT $2)
        """,
        late,
        limit,
    )
    return [row["id"] for row in rows]


async def expire(
    pool: asyncpg.Pool, late: datetime, now: datetime, limit: int, only: Sequence[UUID] | None = None
) -> list[Expired]:
    """Expire messages that were due at ``late`` or before and are not being sent; return them.

    These are up to ``limit`` unpublished ones, and as many in the queue. If ``only`` is given, only these messages
    count. One that was planned before its user moved, and has certainly not arrived, is cancelled, so that the new date
    can be greeted this year.
    """
    rows = await pool.fetch(
        """
        WITH unpublished AS (
            SELECT id FROM message_logs
            WHERE phase = 'scheduled' AND status = 'scheduled' AND scheduled_at <= $1
              AND ($4::uuid[] IS NULL OR id = ANY($4))
            ORDER BY scheduled_at LIMIT $3 FOR UPDATE SKIP LOCKED
        ), published AS (
            -- What is being sent is nobody's to expire.
            SELECT id FROM message_logs
            WHERE id = ANY(ARRAY(
                      SELECT id FROM messages_in_flight
                      WHERE status IN ('queued', 'retrying') AND due_at <= $1 AND ($4::uuid[] IS NULL OR id = ANY($4))
                      ORDER BY queued_at LIMIT 10 * $3))
              -- It may have been requeued meanwhile.
              AND status IN ('queued', 'retrying') AND greatest(scheduled_at, requeued_at) <= $1
            LIMIT $3 FOR UPDATE SKIP LOCKED
        )
        UPDATE message_logs m
        SET updated_at = $2, next_attempt_at = NULL,
            status = CASE WHEN EXISTS (
                SELECT FROM users u WHERE u.id = m.user_id AND u.deleted_at IS NULL AND NOT u.suppressed
                                      AND NOT is_current(m, u)) THEN 'cancelled' ELSE 'expired' END
        FROM (SELECT id FROM unpublished UNION ALL SELECT id FROM published) late
        WHERE m.id = late.id AND m.status IN ('scheduled', 'queued', 'retrying')
        RETURNING m.id, m.scheduled_at, m.status = 'cancelled' AS moved
        """,
        late,
        now,
        limit,
        only,
    )
    return [Expired(row["id"], row["scheduled_at"], row["moved"]) for row in rows]


class Mended(NamedTuple):
    """How many messages in flight nothing had noted, and how many notes were of messages that are not in flight."""

    noted: int
    removed: int


async def mend_flight(pool: asyncpg.Pool, after: datetime, now: datetime, stale_before: datetime) -> Mended:
    """Let the table ``in_flight`` agree with the messages that fell due in ``(after, now]``.

    Triggers see to that. But somebody may have disabled them, or have written the phase of a message by hand; then the
    janitor would not find the message. Only notes from before ``stale_before`` are removed, because a message may be
    requeued at this moment.
    """
    async with pool.acquire() as connection, connection.transaction():
        # A plan that was made while nothing was in flight would read the table for each message.
        await connection.execute("SET LOCAL enable_seqscan = off")
        noted = await connection.execute(
            """
            WITH forgotten AS (
                SELECT m.id, coalesce(m.queued_at, m.updated_at) AS queued_at,
                       greatest(m.scheduled_at, m.requeued_at) AS due_at
                FROM message_logs m
                WHERE m.scheduled_at > $1 AND m.scheduled_at <= $2 AND m.status IN ('queued', 'sending', 'retrying')
                  AND NOT EXISTS (SELECT FROM in_flight f WHERE f.id = m.id)
                FOR UPDATE OF m SKIP LOCKED
            )
            INSERT INTO in_flight (id, queued_at, due_at) SELECT id, queued_at, due_at FROM forgotten
            ON CONFLICT DO NOTHING
            """,
            after,
            now,
            timeout=RESCUE_SECONDS,
        )
        removed = await connection.execute(
            """
            DELETE FROM in_flight f
            WHERE f.queued_at <= $1 AND NOT EXISTS (
                SELECT FROM message_logs m WHERE m.id = f.id AND m.status IN ('queued', 'sending', 'retrying'))
            """,
            stale_before,
            timeout=RESCUE_SECONDS,
        )
    return Mended(rows_changed(noted), rows_changed(removed))


async def forget_greetings(pool: asyncpg.Pool, now: datetime, limit: int) -> int:
    """Remove up to ``limit`` notes of who was greeted in a year that is over in every zone; return how many."""
    status = await pool.execute(
        """
        DELETE FROM past_greetings WHERE (person_hash, message_type) IN (
            SELECT person_hash, message_type FROM past_greetings WHERE year < $1 LIMIT $2)
        """,
        (now - timedelta(days=2)).year,
        limit,
    )
    return rows_changed(status)


async def remove_old(pool: asyncpg.Pool, finished_before: datetime, limit: int) -> int:
    """Remove up to ``limit`` messages that were due and finished before an instant; return how many.

    A trigger keeps the years of these messages with their users, so that nobody is greeted twice in a year (invariant
    1). The transaction locks the planners' watermark, because a planner that had read a user before would not see the
    year that is being kept. Users are locked before messages, as everywhere else.
    """
    async with pool.acquire() as connection, connection.transaction():
        await lock_watermark(connection, PLANNED)
        rows = await connection.fetch(
            """
            SELECT id, user_id FROM message_logs
            -- scheduled_at has the index. The summaries of the one on created_at cannot tell what is old any more: each
            -- has that of a row that is long gone. An outcome may be newer, and pollers of the feed have it as long.
            WHERE scheduled_at < $1 AND updated_at < $1 AND status IN ('delivered', 'failed', 'cancelled', 'expired')
            ORDER BY scheduled_at, id LIMIT $2
            """,
            finished_before,
            limit,
        )
        await connection.execute(
            "SELECT FROM users WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE",
            [row["user_id"] for row in rows],
        )
        status = await connection.execute(
            """
            DELETE FROM message_logs
            WHERE id = ANY($1::uuid[]) AND status IN ('delivered', 'failed', 'cancelled', 'expired')
            """,
            [row["id"] for row in rows],
        )
    return rows_changed(status)
