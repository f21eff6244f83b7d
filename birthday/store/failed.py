"""Messages that failed, as operators handle them: found by what they have in common, and given another start.

The truth about a dead letter is here; the dead-letter queue only has a copy of its id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from birthday.core.message import ErrorType
from birthday.store.history import Message, read_messages
from birthday.store.users import Connection

COUNT_SECONDS = 600
"""How long counting may take: a whole day's messages may have failed."""


@dataclass(frozen=True, slots=True)
class FailedFilter:
    """Which failed messages are meant: those for which all that is given holds.

    They failed at ``failed_from`` or later, and before ``failed_before``.
    """

    error_type: ErrorType | None = None
    user_id: UUID | None = None
    failed_from: datetime | None = None
    failed_before: datetime | None = None
    message_id: UUID | None = None
    http_status: int | None = None
    """What the message service, or a proxy before it, answered."""


async def find_failed(connection: Connection, wanted: FailedFilter) -> list[UUID]:
    """Return the ids of all failed messages that are meant, those whose local birthday ends soonest first."""
    rows = await connection.fetch(
        """
        SELECT id FROM message_logs
        WHERE status = 'failed'
          AND ($1::text IS NULL OR error_type = $1)
          AND ($2::uuid IS NULL OR user_id = $2)
          AND ($3::timestamptz IS NULL OR updated_at >= $3)
          AND ($4::timestamptz IS NULL OR updated_at < $4)
          AND ($5::uuid IS NULL OR id = $5)
          AND ($6::int IS NULL OR substring(error_detail FROM 'answered ([1-5][0-9][0-9])')::int = $6)
        ORDER BY ends_at, id
        """,
        wanted.error_type,
        wanted.user_id,
        wanted.failed_from,
        wanted.failed_before,
        wanted.message_id,
        wanted.http_status,
    )
    return [row["id"] for row in rows]


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """How many messages failed within the hour that begins at ``hour``, UTC, for one reason.

    ``http_status`` is what the message service answered, None if it answered nothing.
    """

    error_type: str
    http_status: int | None
    hour: datetime
    messages: int


async def count_failed(connection: Connection, wanted: FailedFilter) -> list[FailedGroup]:
    """Count the failed messages that are meant by reason and hour, the latest hour first, then the largest group."""
    rows = await connection.fetch(
        """
        SELECT coalesce(error_type, 'unknown') AS error_type,
               substring(error_detail FROM 'answered ([1-5][0-9][0-9])')::int AS http_status,
               date_trunc('hour', updated_at, 'UTC') AS hour, count(*) AS messages
        FROM message_logs
        WHERE status = 'failed'
          AND ($1::text IS NULL OR error_type = $1)
          AND ($2::uuid IS NULL OR user_id = $2)
          AND ($3::timestamptz IS NULL OR updated_at >= $3)
          AND ($4::timestamptz IS NULL OR updated_at < $4)
          AND ($5::uuid IS NULL OR id = $5)
          AND ($6::int IS NULL OR substring(error_detail FROM 'answered ([1-5][0-9][0-9])')::int = $6)
        GROUP BY 1, 2, 3 ORDER BY hour DESC, messages DESC, error_type, http_status
        """,
        wanted.error_type,
        wanted.user_id,
        wanted.failed_from,
        wanted.failed_before,
        wanted.message_id,
        wanted.http_status,
        timeout=COUNT_SECONDS,
    )
    return [
        FailedGroup(row["error_type"], row["http_status"], row["hour"].astimezone(UTC), row["messages"]) for row in rows
    ]


async def requeue_failed(
    connection: Connection, ids: Sequence[UUID], now: datetime, traceparent: str | None = None
) -> list[Message]:
    """Give those of ``ids`` that are failed a new start, and hold their rows until the transaction ends.

    The broker must have confirmed them before that transaction commits. ``traceparent`` is the context of whoever asks
    for that, if it is traced: it takes the place of the one that each was made in.
    """
    # In order of id: two operators with the same messages cannot deadlock, and the later one finds them queued. Two
    # statements, because a plan of one, made while the table is small, would join row by row when it is large.
    await connection.execute(
        "SELECT FROM message_logs WHERE id = ANY($1::uuid[]) AND status = 'failed' ORDER BY id FOR UPDATE", ids
    )
    rows = await connection.fetch(
        """
        UPDATE message_logs
        SET status = 'queued', attempts = 0, requeued_at = $2, queued_at = $2, updated_at = $2,
            error_type = NULL, error_detail = NULL, next_attempt_at = NULL, lease_until = NULL,
            failures = 0, failed_at = NULL, blamed = false,
            traceparent = coalesce($3, traceparent)
        WHERE id = ANY($1::uuid[]) AND status = 'failed'
        RETURNING id
        """,
        ids,
        now,
        traceparent,
    )
    return list((await read_messages(connection, [row["id"] for row in rows])).values())
