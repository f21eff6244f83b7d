"""Who is greeted today: messages that fall due within a day or so, with their users, in order of time.

A day may have a message for nearly everybody. So no statement looks at more than some messages; a page of the list may
be short, and goes on after the last message that was looked at.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import orjson

from birthday.core.message import Status
from birthday.store.connection import Connection
from birthday.store.history import Position

MOST_READ: Final = 10_000
"""How many messages one statement looks at."""
_START: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Day:
    """The present date in each zone, and the instants between which messages for these dates are due."""

    dates: Mapping[str, date]
    from_at: datetime
    to_at: datetime

    def after(self, position: Position | None) -> tuple[object, ...]:
        """Return what the statements take: the dates, and between which positions they read."""
        start = position or Position(self.from_at, _START)
        return orjson.dumps(self.dates).decode(), *start, self.to_at


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of them to list; None is no condition. ``name`` is what a first, last or full name begins with."""

    statuses: Collection[Status] = tuple(Status)
    name: str | None = None
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Greeted:
    """A message of today and its user, who may have been deleted since."""

    message_id: UUID
    user_id: UUID
    first_name: str
    last_name: str
    email: str
    zone: str
    message_type: str
    status: Status
    scheduled_at: datetime
    delivered_at: datetime | None
    error_type: str | None

    @property
    def position(self) -> Position:
        """Where it stands in the list."""
        return Position(self.scheduled_at, self.message_id)


async def list_greeted(
    connection: Connection, day: Day, wanted: Wanted, after: Position | None, limit: int
) -> tuple[list[Greeted], Position | None]:
    """Return up to ``limit`` messages after a position, in order of time, and after which the list goes on, if any."""
    async with _in_order(connection):
        rows = await connection.fetch(
            """
            SELECT m.id, m.user_id, u.first_name, u.last_name, u.email, u.timezone, m.message_type, m.status,
                   m.scheduled_at, m.delivered_at, m.error_type
            FROM (SELECT * FROM message_logs
                  WHERE scheduled_at BETWEEN $2 AND $4 AND (scheduled_at, id) > ($2, $3)
                  ORDER BY scheduled_at, id LIMIT $5) m
            -- One by one, so that the statement ends with the page.
            CROSS JOIN LATERAL (
                SELECT first_name, last_name, email, timezone FROM users WHERE id = m.user_id OFFSET 0) u
            WHERE m.status = ANY($6::text[]) AND $1::jsonb ->> u.timezone = m.occasion_on::text
              AND ($7::text IS NULL OR starts_with(lower(u.first_name || ' ' || u.last_name), lower($7))
                                    OR starts_with(lower(u.last_name || ' ' || u.first_name), lower($7)))
              AND ($8::text IS NULL OR lower(u.email) = lower($8))
            ORDER BY m.scheduled_at, m.id LIMIT $9
            """,
            *day.after(after),
            MOST_READ,
            list(wanted.statuses),
            wanted.name,
            wanted.email,
            limit + 1,
        )
    found = [_greeted(row) for row in rows]
    if len(found) > limit:
        return found[:limit], found[limit - 1].position
    last = await connection.fetchrow(
        """
        SELECT scheduled_at, id FROM message_logs
        WHERE scheduled_at BETWEEN $1 AND $3 AND (scheduled_at, id) > ($1, $2)
        ORDER BY scheduled_at, id OFFSET $4 LIMIT 1
        """,
        *day.after(after)[1:],
        MOST_READ - 1,
    )
    return found, None if last is None else Position(*last)


async def count_greeted(connection: Connection, day: Day) -> tuple[dict[tuple[str, Status], int], bool]:
    """Return how many messages of today there are by zone and status, and whether these are all."""
    async with _in_order(connection):
        rows = await connection.fetch(
            """
            SELECT u.timezone, m.status, $1::jsonb ->> u.timezone = m.occasion_on::text AS is_today,
                   count(*) AS messages
            FROM (SELECT user_id, status, occasion_on FROM message_logs
                  WHERE scheduled_at BETWEEN $2 AND $4 AND (scheduled_at, id) > ($2, $3)
                  ORDER BY scheduled_at, id LIMIT $5) m
            LEFT JOIN LATERAL (SELECT timezone FROM users WHERE id = m.user_id OFFSET 0) u ON true
            GROUP BY 1, 2, 3
            """,
            *day.after(None),
            MOST_READ,
        )
    counts = {(row["timezone"], Status(row["status"])): row["messages"] for row in rows if row["is_today"]}
    return counts, sum(row["messages"] for row in rows) < MOST_READ


@asynccontextmanager
async def _in_order(connection: Connection) -> AsyncIterator[None]:
    """Read messages by the index of their time: anything else would read all of the day, or more, for a page."""
    async with connection.transaction(readonly=True):
        await connection.execute("SET LOCAL enable_bitmapscan = off")
        await connection.execute("SET LOCAL enable_seqscan = off")
        yield


def _greeted(row: Any) -> Greeted:  # noqa: ANN401 - asyncpg has no type for the names of a row
    values: dict[str, Any] = dict(row)
    status = Status(values.pop("status"))
    return Greeted(message_id=values.pop("id"), zone=values.pop("timezone"), status=status, **values)
