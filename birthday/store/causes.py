"""Why messages failed, counted, and the failed messages of one cause: bounded reads, for a page.

Both read the failed messages from the newest on, and only the ``MOST`` newest ones are counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from birthday.core.message import ErrorType
from birthday.store.connection import Connection
from birthday.store.failed import FailedFilter
from birthday.store.history import Message, Position, read_messages

MOST: Final = 10_000
"""How many failed messages are counted."""
DETAIL: Final = 60
"""How many characters of an error identify its cause."""


@dataclass(frozen=True, slots=True)
class Cause:
    """How many messages of a type failed for one reason, from when to when, and one of them.

    ``http_status`` is what the message service or mail server answered. ``detail`` is how the error begins.
    """

    error_type: ErrorType | None
    http_status: int | None
    message_type: str
    detail: str
    messages: int
    first_at: datetime
    last_at: datetime
    sample: UUID


@dataclass(frozen=True, slots=True)
class Causes:
    """The causes of failed messages, the largest first, and how many failed in each hour, UTC."""

    causes: Sequence[Cause]
    hours: Mapping[datetime, int]

    @property
    def messages(self) -> int:
        """How many failed messages were counted; more than ``MOST`` are not."""
        return sum(self.hours.values())


async def count_causes(connection: Connection, wanted: FailedFilter) -> Causes:
    """Count the selected failed messages by cause, and by the hour in which they failed."""
    async with connection.transaction(readonly=True):
        # There are few groups, but PostgreSQL expects one for each instant, and would sort all rows on disk.
        await connection.execute("SET LOCAL enable_sort = off")
        rows = await connection.fetch(
            """
            SELECT hour, error_type, message_type, coalesce(detail, '') AS detail, count(*) AS messages,
                   min(updated_at) AS first_at, max(updated_at) AS last_at, (array_agg(id))[1] AS sample
            FROM (SELECT id, error_type, message_type, left(error_detail, $10) AS detail, updated_at,
                         date_trunc('hour', updated_at, 'UTC') AS hour
                  FROM message_logs m WHERE is_selected(m, $1, $2, $3, $4, $5, $6, $7, $8)
                  ORDER BY scheduled_at DESC, id DESC LIMIT $9) failed
            GROUP BY GROUPING SETS ((error_type, message_type, detail), (hour))
            """,
            *astuple(wanted),
            MOST,
            DETAIL,
        )
        causes = sorted((row for row in rows if row["hour"] is None), key=lambda row: row["messages"], reverse=True)
        statuses = await connection.fetch(
            # Only of these, because the status is found by a regular expression.
            "SELECT id, http_status(m) AS http_status FROM message_logs m WHERE id = ANY($1::uuid[])",
            [row["sample"] for row in causes],
        )
    status_of = {row["id"]: row["http_status"] for row in statuses}
    return Causes(
        [_cause(row, status_of.get(row["sample"])) for row in causes],
        {row["hour"]: row["messages"] for row in rows if row["hour"] is not None},
    )


def _cause(row: asyncpg.Record, http_status: int | None) -> Cause:
    error_type = None if row["error_type"] is None else ErrorType(row["error_type"])
    names = ("message_type", "detail", "messages", "first_at", "last_at", "sample")
    return Cause(error_type, http_status, *(row[name] for name in names))


async def list_failed(connection: Connection, wanted: FailedFilter, after: Position, limit: int) -> list[Message]:
    """Return up to ``limit`` of the selected failed messages that come after a position, newest first."""
    rows = await connection.fetch(
        """
        SELECT id FROM message_logs m
        WHERE is_selected(m, $1, $2, $3, $4, $5, $6, $7, $8) AND (scheduled_at, id) < ($9, $10)
        ORDER BY scheduled_at DESC, id DESC LIMIT $11
        """,
        *astuple(wanted),
        *after,
        limit,
    )
    found = await read_messages(connection, [row["id"] for row in rows])
    return [found[row["id"]] for row in rows if row["id"] in found]
