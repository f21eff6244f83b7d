"""Step 2, dispatch: what is due, in order of deadline, and what the broker has confirmed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from birthday.store.connection import Connection
from birthday.telemetry.tracing import TraceContext


@dataclass(frozen=True, slots=True)
class Due:
    """The last deadline of the messages that are due, and when the next message falls due. Either may be None."""

    last_deadline: datetime | None
    next_due_at: datetime | None


async def look_ahead(connection: Connection | asyncpg.Pool, now: datetime, not_before: datetime) -> Due:
    """Read what fell due in ``(not_before, now]``, and when the next message falls due."""
    row = await connection.fetchrow(
        """
        SELECT (SELECT max(ends_at) FROM message_logs
                WHERE phase = 'scheduled' AND status = 'scheduled' AND scheduled_at <= $1
                  AND scheduled_at > $2) AS last_deadline,
               (SELECT min(scheduled_at) FROM message_logs
                WHERE phase = 'scheduled' AND status = 'scheduled' AND scheduled_at > $1) AS next_due_at
        """,
        now,
        not_before,
    )
    last_deadline, next_due_at = row or (None, None)
    return Due(last_deadline, next_due_at)


async def lock_due(
    connection: Connection,
    now: datetime,
    not_before: datetime,
    last_deadline: datetime,
    limit: int,
    paused: Sequence[str] = (),
) -> list[UUID]:
    """Lock and return up to ``limit`` due messages, those whose local date ends soonest first; none of ``paused`` ones.

    Other dispatchers skip the locked rows. A worker that has already received one of them waits for the commit. The
    index scan is in order of deadline; ``last_deadline`` keeps it from reading all future messages. Call it within a
    transaction.
    """
    # A plan that does not know the arguments, or has old statistics, expects few rows. It would read and sort all that
    # are due, for each batch again.
    await connection.execute("SET LOCAL enable_sort = off")
    rows = await connection.fetch(
        """
        SELECT id FROM message_logs
        WHERE phase = 'scheduled' AND status = 'scheduled' AND scheduled_at <= $1 AND scheduled_at > $2
          AND ends_at <= $3
          AND message_type <> ALL($5::text[])
        ORDER BY ends_at LIMIT $4
        FOR UPDATE SKIP LOCKED
        """,
        now,
        not_before,
        last_deadline,
        limit,
        paused,
    )
    return [row["id"] for row in rows]


async def lock_next(
    connection: Connection, now: datetime, until: datetime, limit: int, paused: Sequence[str] = ()
) -> list[tuple[UUID, datetime]]:
    """Lock up to ``limit`` messages that fall due in ``(now, until]``, the next ones first; none of ``paused`` types.

    Returns ids and when they are due. Otherwise it is like ``lock_due``.
    """
    await connection.execute("SET LOCAL enable_sort = off")
    rows = await connection.fetch(
        """
        SELECT id, scheduled_at FROM message_logs
        WHERE phase = 'scheduled' AND status = 'scheduled' AND scheduled_at > $1 AND scheduled_at <= $2
          AND message_type <> ALL($4::text[])
        ORDER BY scheduled_at LIMIT $3
        FOR UPDATE SKIP LOCKED
        """,
        now,
        until,
        limit,
        paused,
    )
    return [(row["id"], row["scheduled_at"]) for row in rows]


async def read_trace_contexts(connection: Connection, ids: Sequence[UUID]) -> list[TraceContext]:
    """Return the trace context in which each of these messages was made."""
    rows = await connection.fetch("SELECT id, traceparent FROM message_logs WHERE id = ANY($1::uuid[])", ids)
    return [TraceContext(*row) for row in rows]


async def mark_queued(connection: Connection | asyncpg.Pool, ids: Sequence[UUID], now: datetime) -> None:
    """Record that the broker has confirmed these messages. The caller's transaction may hold them, but need not.

    The statement itself notes them in ``in_flight``, because the trigger that otherwise does it costs more.
    """
    await connection.execute(
        """
        WITH queued AS (
            UPDATE message_logs SET status = 'queued', phase = 'published', queued_at = $2, updated_at = $2
            WHERE id = ANY($1::uuid[]) AND status = 'scheduled'
            RETURNING id, greatest(scheduled_at, requeued_at) AS due_at
        )
        INSERT INTO in_flight (id, queued_at, due_at) SELECT id, $2, due_at FROM queued
        ON CONFLICT (id) DO UPDATE SET queued_at = excluded.queued_at, due_at = excluded.due_at
        """,
        ids,
        now,
    )
