"""What the overview counts, in bounded time: a day's messages, how late they were delivered, and why some failed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from birthday.core.message import Status
from birthday.store.connection import Connection

MOST_OF_DAY: Final = 50_000
"""How many messages of a day are counted at most: more only says that it is a large day."""
MOST_AHEAD: Final = 200_000
"""How many planned messages are counted at most: an index has all of it."""
MOST_FAILED: Final = 10_000
LATENESS: Final = tuple(timedelta(seconds=seconds) for seconds in (1, 5, 60, 600, 3600))
"""What parts the classes of lateness: there is one class more than limits."""


@dataclass(frozen=True, slots=True)
class DayCount:
    """How many messages of a day have a status and, if they are delivered, a class of lateness."""

    status: Status
    lateness: int | None
    messages: int


@dataclass(frozen=True, slots=True)
class Reason:
    """How many of the failed messages failed for one reason, and when the last of them did."""

    error_type: str
    messages: int
    last_at: datetime


async def count_day(connection: Connection, from_at: datetime, to_at: datetime) -> list[DayCount]:
    """Count the messages due in ``[from_at, to_at)`` that are not cancelled; at most one more than ``MOST_OF_DAY``."""
    rows = await connection.fetch(
        """
        SELECT status, lateness, count(*) AS messages FROM (
            SELECT status, CASE WHEN status = 'delivered' THEN width_bucket(
                delivered_at - coalesce(requeued_at, scheduled_at), $4::interval[]) END AS lateness
            FROM message_logs
            WHERE scheduled_at >= $1 AND scheduled_at < $2 AND status <> 'cancelled'
            ORDER BY scheduled_at, id LIMIT $3 + 1
        ) AS day GROUP BY status, lateness
        """,
        from_at,
        to_at,
        MOST_OF_DAY,
        LATENESS,
    )
    return [DayCount(Status(row["status"]), row["lateness"], row["messages"]) for row in rows]


async def count_ahead(connection: Connection, after: datetime, until: datetime) -> dict[datetime, int]:
    """Count the planned messages due in ``(after, until]`` by instant: the first ``MOST_AHEAD`` of them, and one."""
    rows = await connection.fetch(
        """
        SELECT scheduled_at, count(*) AS messages FROM (
            SELECT scheduled_at FROM message_logs
            WHERE phase = 'scheduled' AND scheduled_at > $1 AND scheduled_at <= $2
            ORDER BY scheduled_at LIMIT $3 + 1
        ) AS ahead GROUP BY scheduled_at
        """,
        after,
        until,
        MOST_AHEAD,
    )
    return {row["scheduled_at"]: row["messages"] for row in rows}


async def count_reasons(connection: Connection) -> Sequence[Reason]:
    """Count the failed messages by reason, the largest first; at most one more than ``MOST_FAILED``, the latest due."""
    rows = await connection.fetch(
        """
        SELECT error_type, count(*) AS messages, max(updated_at) AS last_at FROM (
            SELECT coalesce(error_type, 'unknown') AS error_type, updated_at FROM message_logs
            WHERE phase = 'undelivered' AND status = 'failed'
            ORDER BY scheduled_at DESC, id DESC LIMIT $1 + 1
        ) AS failed GROUP BY error_type ORDER BY messages DESC, error_type
        """,
        MOST_FAILED,
    )
    return [Reason(*row) for row in rows]


async def has_users(connection: Connection) -> bool:
    """Say whether there is anybody, live or deleted."""
    # EXISTS would be planned without an index, which is slow if the beginning of the table has been emptied.
    return await connection.fetchval("SELECT id FROM users ORDER BY id LIMIT 1") is not None
