"""Messages as the API shows them: lists, newest first, and one by id.

Pages are cut by position (``scheduled_at``, then id), not by offset, so that a page continues the one before it even if
rows are written in between.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from birthday.core.message import BIRTHDAY, ON_TIME, Status
from birthday.errors import NotFoundError
from birthday.store.connection import Connection
from birthday.store.users import unknown_user


@dataclass(frozen=True, slots=True)
class Message:
    """A message as stored: the columns of the view ``message_details``.

    Instants are aware UTC; ``occasion_on`` is the local date of the occasion.
    """

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
    template: str | None
    locale: str | None
    version: int | None
    created_at: datetime
    updated_at: datetime

    @property
    def late(self) -> bool:
        """Whether it was delivered, but not in time."""
        return self.delivered_at is not None and self.delivered_at - self.scheduled_at > ON_TIME


class Position(NamedTuple):
    """Where a message stands in a list."""

    scheduled_at: datetime
    id: UUID


FIRST = Position(datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))
"""The position before any message."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages to list: of these states, due at ``from_at`` or later and before ``to_at``; None is no limit."""

    statuses: Collection[Status] = tuple(Status)
    from_at: datetime | None = None
    to_at: datetime | None = None
    message_type: str | None = None
    error_type: str | None = None
    user_id: UUID | None = None


_LIST: Final = """
    SELECT * FROM message_details
    WHERE status = ANY($1::text[]) AND scheduled_at >= $2 AND (scheduled_at, id) < ($3, $4)
      AND ($6::text IS NULL OR message_type = $6) AND ($7::text IS NULL OR error_type = $7)
      AND ($8::uuid IS NULL OR user_id = $8)
    """
_NEWEST_FIRST: Final = " ORDER BY scheduled_at DESC, id DESC LIMIT $5"
_OF_TYPE: Final = "AND message_type = $6 AND message_type <> 'birthday'"
_OF_ERROR: Final = "AND error_type = $7"
_OF_STATUSES: Final = {
    "AND phase = 'scheduled'": {Status.SCHEDULED},
    "AND id = ANY(ARRAY(SELECT id FROM in_flight))": {Status.QUEUED, Status.SENDING, Status.RETRYING},
    "AND phase = 'undelivered'": {Status.FAILED, Status.EXPIRED},
    "AND phase = 'cancelled'": {Status.CANCELLED},
}
# In two halves, because each of the two indexes by user holds one.
_OF_USER: Final = "AND (user_id = $8 AND phase <> 'cancelled' OR user_id = $8 AND phase = 'cancelled')"


async def list_messages(connection: Connection, selection: Selection, after: Position, limit: int) -> list[Message]:
    """Return up to ``limit`` messages that come after a position, newest first."""
    if selection.to_at is not None:
        after = min(after, Position(selection.to_at, UUID(int=0)))
    rows = await connection.fetch(
        _LIST + _index_condition(selection) + _NEWEST_FIRST,
        list(selection.statuses),
        selection.from_at or datetime.min.replace(tzinfo=UTC),
        *after,
        limit,
        selection.message_type,
        selection.error_type,
        selection.user_id,
    )
    return [as_message(row) for row in rows]


def _index_condition(selection: Selection) -> str:
    """Repeat conditions without 'or null', so that their index is used; most messages are of a birthday."""
    if selection.user_id is not None:
        return _OF_USER
    if selection.error_type is not None:
        return _OF_ERROR
    of_type = _OF_TYPE if selection.message_type not in {None, BIRTHDAY} else ""
    for condition, statuses in _OF_STATUSES.items():
        if statuses.issuperset(selection.statuses):
            return f"{condition} {of_type}"
    return of_type


async def list_user_messages(connection: Connection, user_id: UUID, after: Position, limit: int) -> list[Message]:
    """Return up to ``limit`` messages of a user that come after a position, newest first.

    The user may be deleted or erased: each message that there is can be found by its user.

    Raises:
        NotFoundError: if there is no such user, and no message.
    """
    rows = await connection.fetch(
        """
        SELECT * FROM message_details
        -- In two halves, as in _OF_USER.
        WHERE (user_id = $1 AND phase <> 'cancelled' OR user_id = $1 AND phase = 'cancelled')
          AND (scheduled_at, id) < ($2, $3)
        ORDER BY scheduled_at DESC, id DESC LIMIT $4
        """,
        user_id,
        *after,
        limit,
    )
    if not rows and not await is_known(connection, user_id):
        raise unknown_user(user_id)
    return [as_message(row) for row in rows]


async def read_all_messages(connection: Connection, user_id: UUID) -> list[Message]:
    """Return all messages of a user, newest first."""
    rows = await connection.fetch(
        """
        SELECT * FROM message_details
        WHERE user_id = $1 AND phase <> 'cancelled' OR user_id = $1 AND phase = 'cancelled'
        ORDER BY scheduled_at DESC, id DESC
        """,
        user_id,
    )
    return [as_message(row) for row in rows]


async def is_known(connection: Connection, user_id: UUID) -> bool:
    """Say whether there is a user, live or deleted, or a message of one who is gone."""
    known: bool = await connection.fetchval(
        """
        SELECT EXISTS (SELECT FROM users WHERE id = $1)
            OR EXISTS (SELECT FROM message_logs WHERE user_id = $1 AND phase <> 'cancelled')
            OR EXISTS (SELECT FROM message_logs WHERE user_id = $1 AND phase = 'cancelled')
        """,
        user_id,
    )
    return known


async def read_message(connection: Connection, message_id: UUID) -> Message:
    """Return one message.

    Raises:
        NotFoundError: if there is no such message.
    """
    for message in (await read_messages(connection, [message_id])).values():
        return message
    raise NotFoundError(f"there is no message {message_id}", "unknown_message")


@dataclass(frozen=True, slots=True)
class Trail:
    """What is stored of the way of a message besides its state. ``traceparent`` is None if nothing was traced."""

    failed_at: datetime | None = None
    may_have_arrived: bool = False
    traceparent: str | None = None


async def read_trail(connection: Connection, message_id: UUID) -> Trail:
    """Return the way of a message; empty if there is no such message any more."""
    row = await connection.fetchrow(
        "SELECT failed_at, may_have_arrived, traceparent FROM message_logs WHERE id = $1", message_id
    )
    return Trail() if row is None else Trail(*row)


async def read_messages(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, Message]:
    """Return those of ``ids`` that are messages, in any state."""
    rows = await connection.fetch("SELECT * FROM message_details WHERE id = ANY($1::uuid[])", ids)
    return {row["id"]: as_message(row) for row in rows}


_COLUMNS: Final = tuple(field.name for field in fields(Message))


def as_message(row: asyncpg.Record) -> Message:
    """Return the message in a row of the view; a newer schema may have more columns."""
    members = {name: row[name] for name in _COLUMNS} | {"status": Status(row["status"])}
    return Message(**members)
