"""Messages as the API shows them: lists, newest first, and one by id.

Lists are cut by position (``scheduled_at``, then id), never by counting, so that a page follows the one before it
whatever is written in between.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from birthday.core.message import Status
from birthday.errors import NotFoundError
from birthday.store.users import Connection


@dataclass(frozen=True, slots=True)
class Message:
    """A message as stored. Instants are aware UTC; ``occasion_on`` is the local date that is greeted."""

    id: UUID
    user_id: UUID
    message_type: str
    status: Status
    scheduled_at: datetime
    occasion_on: date
    attempts: int
    next_attempt_at: datetime | None
    queued_at: datetime | None
    sent_at: datetime | None
    delivered_at: datetime | None
    error_type: str | None
    error_detail: str | None
    created_at: datetime
    updated_at: datetime


class Position(NamedTuple):
    """Where a message stands in a list."""

    scheduled_at: datetime
    id: UUID


FIRST = Position(datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))
"""Before the newest message there can be."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages to list: of these states, due at ``from_at`` or later and before ``to_at``; None is no limit."""

    statuses: Collection[Status] = tuple(Status)
    from_at: datetime | None = None
    to_at: datetime | None = None


async def list_messages(connection: Connection, selection: Selection, after: Position, limit: int) -> list[Message]:
    """Return up to ``limit`` messages that come after a position, newest first."""
    if selection.to_at is not None:
        after = min(after, Position(selection.to_at, UUID(int=0)))
    rows = await connection.fetch(
        """
        SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
               sent_at, delivered_at, error_type, error_detail, created_at, updated_at
        FROM message_logs
        WHERE status = ANY($1::text[]) AND scheduled_at >= $2 AND (scheduled_at, id) < ($3, $4)
        ORDER BY scheduled_at DESC, id DESC LIMIT $5
        """,
        list(selection.statuses),
        selection.from_at or datetime.min.replace(tzinfo=UTC),
        *after,
        limit,
    )
    return [message_of(row) for row in rows]


async def list_user_messages(connection: Connection, user_id: UUID, after: Position, limit: int) -> list[Message]:
    """Return up to ``limit`` messages of a live user that come after a position, newest first.

    Raises:
        NotFoundError: if there is no such user.
    """
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT 1 FROM users WHERE id = $1 AND deleted_at IS NULL)", user_id
    ):
        raise NotFoundError(f"there is no user {user_id}")
    rows = await connection.fetch(
        """
        SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
               sent_at, delivered_at, error_type, error_detail, created_at, updated_at
        FROM message_logs
        -- In two halves, because each of the two indexes by user holds one.
        WHERE (user_id = $1 AND status <> 'cancelled' OR user_id = $1 AND status = 'cancelled')
          AND (scheduled_at, id) < ($2, $3)
        ORDER BY scheduled_at DESC, id DESC LIMIT $4
        """,
        user_id,
        *after,
        limit,
    )
    return [message_of(row) for row in rows]


async def read_message(connection: Connection, message_id: UUID) -> Message:
    """Return one message.

    Raises:
        NotFoundError: if there is none.
    """
    row = await connection.fetchrow(
        """
        SELECT id, user_id, message_type, status, scheduled_at, occasion_on, attempts, next_attempt_at, queued_at,
               sent_at, delivered_at, error_type, error_detail, created_at, updated_at
        FROM message_logs WHERE id = $1
        """,
        message_id,
    )
    if row is None:
        raise NotFoundError(f"there is no message {message_id}")
    return message_of(row)


def message_of(row: asyncpg.Record) -> Message:
    """Return the message in a row that has all the columns above."""
    return Message(
        id=UUID(bytes=row["id"].bytes),
        user_id=UUID(bytes=row["user_id"].bytes),
        message_type=row["message_type"],
        status=Status(row["status"]),
        scheduled_at=row["scheduled_at"],
        occasion_on=row["occasion_on"],
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
        queued_at=row["queued_at"],
        sent_at=row["sent_at"],
        delivered_at=row["delivered_at"],
        error_type=row["error_type"],
        error_detail=row["error_detail"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
