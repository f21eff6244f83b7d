"""Failed messages, as operators handle them: find them by error, user or time, and requeue them, or delivered ones.

The truth about a dead letter is its row; the dead-letter queue only has a copy of its id.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from birthday.core.message import ErrorType, Status
from birthday.store.connection import Connection, borrow
from birthday.store.history import Message, read_messages

PAGE = 10_000
"""How many ids are read at a time: many, because the query of each page sorts all failed messages."""
COUNT_SECONDS = 600
"""How long counting may take: a whole day's messages may have failed."""


@dataclass(frozen=True, slots=True)
class FailedFilter:
    """Which failed messages are selected: those that meet all given conditions.

    They failed at ``failed_from`` or later, and before ``failed_before``.
    """

    error_type: ErrorType | None = None
    user_id: UUID | None = None
    failed_from: datetime | None = None
    failed_before: datetime | None = None
    message_id: UUID | None = None
    http_status: int | None = None
    """The status that the message service, or a proxy before it, answered."""
    message_type: str | None = None
    detail: str | None = None
    """How the text of the error begins."""


async def find_failed(pool: asyncpg.Pool, wanted: FailedFilter, limit: int | None = None) -> AsyncIterator[list[UUID]]:
    """Yield the ids of up to ``limit`` selected failed messages, those whose local birthday ends soonest first.

    Each page is read in a statement of its own. No id is yielded twice.
    """
    left, after = limit, (datetime.min.replace(tzinfo=UTC), UUID(int=0))
    while left is None or left > 0:
        wide = PAGE if left is None else min(PAGE, left)
        async with borrow(pool) as connection:
            rows = await connection.fetch(
                """
                SELECT id, ends_at FROM message_logs m
                WHERE is_selected(m, $1, $2, $3, $4, $5, $6, $7, $8) AND (ends_at, id) > ($9, $10)
                ORDER BY ends_at, id LIMIT $11
                """,
                *astuple(wanted),
                *after,
                wide,
            )
        if rows:
            yield [row["id"] for row in rows]
            after = rows[-1]["ends_at"], rows[-1]["id"]
        if len(rows) < wide:
            return
        left = None if left is None else left - len(rows)


async def select_failed(connection: Connection, wanted: FailedFilter, ids: Sequence[UUID]) -> set[UUID]:
    """Return those of ``ids`` that are failed messages and selected by ``wanted``."""
    rows = await connection.fetch(
        "SELECT id FROM message_logs m WHERE id = ANY($9::uuid[]) AND is_selected(m, $1, $2, $3, $4, $5, $6, $7, $8)",
        *astuple(wanted),
        ids,
    )
    return {row["id"] for row in rows}


@dataclass(frozen=True, slots=True)
class FailedGroup:
    """How many messages failed within the hour that begins at ``hour``, UTC, for one reason.

    ``http_status`` is what the message service answered; None if it did not answer.
    """

    error_type: str
    http_status: int | None
    hour: datetime
    messages: int


async def count_failed(connection: Connection, wanted: FailedFilter) -> list[FailedGroup]:
    """Count the selected failed messages by reason and hour, the latest hour first, then the largest group."""
    rows = await connection.fetch(
        """
        SELECT coalesce(error_type, 'unknown') AS error_type, http_status(m) AS http_status,
               date_trunc('hour', updated_at, 'UTC') AS hour, count(*) AS messages
        FROM message_logs m WHERE is_selected(m, $1, $2, $3, $4, $5, $6, $7, $8)
        GROUP BY 1, 2, 3 ORDER BY hour DESC, messages DESC, error_type, http_status
        """,
        *astuple(wanted),
        timeout=COUNT_SECONDS,
    )
    return [FailedGroup(*row) for row in rows]


async def find_delivered(connection: Connection, from_at: datetime, before: datetime) -> list[UUID]:
    """Return the ids of messages that were delivered in ``[from_at, before)``, in order of delivery.

    Messages of deleted users are left out, because they are not sent again.
    """
    rows = await connection.fetch(
        """
        SELECT m.id FROM message_logs m JOIN users u ON u.id = m.user_id
        WHERE m.status = 'delivered' AND m.delivered_at >= $1 AND m.delivered_at < $2 AND u.deleted_at IS NULL
        ORDER BY m.delivered_at, m.id
        """,
        from_at,
        before,
    )
    return [row["id"] for row in rows]


async def requeue(
    connection: Connection, ids: Sequence[UUID], status: Status, now: datetime, traceparent: str | None = None
) -> list[Message]:
    """Requeue those of ``ids`` that have ``status``, and hold their rows until the transaction ends.

    The broker must confirm them before that transaction commits. If the request is traced, ``traceparent`` is its
    context, and replaces the context in which each message was made. The row stays, so there is still one message for
    the year, with the same idempotency key. If it was delivered, ``may_have_arrived`` is set, so that no message with
    another key ever replaces it. ``sent_at`` stays the time of the first send.
    """
    # Locked in order of id, so that two operators with the same messages cannot deadlock; the later one finds them
    # queued. Two statements, because the plan of a single one that was made while the table was small would join row by
    # row when it is large.
    await connection.execute(
        "SELECT FROM message_logs WHERE id = ANY($1::uuid[]) AND status = $2 ORDER BY id FOR UPDATE", ids, status
    )
    rows = await connection.fetch(
        """
        UPDATE message_logs
        SET status = 'queued', attempts = 0, requeued_at = $3, queued_at = $3, updated_at = $3, delivered_at = NULL,
            may_have_arrived = may_have_arrived OR status = 'delivered',
            error_type = NULL, error_detail = NULL, next_attempt_at = NULL, lease_until = NULL,
            failures = 0, failed_at = NULL, blamed = false, template = NULL, locale = NULL, version = NULL,
            traceparent = coalesce($4, traceparent)
        WHERE id = ANY($1::uuid[]) AND status = $2
        RETURNING id
        """,
        ids,
        status,
        now,
        traceparent,
    )
    return list((await read_messages(connection, [row["id"] for row in rows])).values())
