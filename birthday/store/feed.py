"""The feed: messages in the order in which their outcomes were committed, for pollers and for delivery events.

Each row of ``outcomes`` has the messages whose outcomes one statement stored, and their position. ``settle`` writes its
row itself, and a trigger of the schema does it for all others. Below ``feed_end()`` every transaction has ended, so
nothing appears later before a position that a reader has passed.
"""

from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from birthday.store.connection import Connection, rows_changed
from birthday.store.history import Message, as_message

SCANNED: Final = 8_000
"""The most outcomes that one page with a filter looks at, so that a rare one costs no more than some 20 ms."""
LATENESS: Final = timedelta(hours=1)
"""How much later than its time an outcome may be stored, because the database was away."""


class FeedPosition(NamedTuple):
    """A place in the feed: after the outcome that has it, if one has."""

    position: int
    id: UUID


BEGINNING: Final = FeedPosition(0, UUID(int=0))


@dataclass(frozen=True, slots=True)
class FeedFilter:
    """Which outcomes to list; None is no condition.

    They were due at ``from_at`` or later and before ``to_at``.
    """

    status: str | None = None
    message_type: str | None = None
    error_type: str | None = None
    user_id: UUID | None = None
    from_at: datetime | None = None
    to_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A part of the feed, oldest first. All that matches up to ``end`` is in it or before it.

    ``has_more`` says that the feed goes on already.
    """

    messages: list[Message]
    end: FeedPosition
    has_more: bool


async def read_feed(connection: Connection, after: FeedPosition, wanted: FeedFilter, limit: int) -> FeedPage:
    """Return up to ``limit`` outcomes that come after a position.

    The page may be short or empty although the feed goes on: with a filter, or where messages are gone or requeued.
    """
    if wanted == FeedFilter():
        page = await _look(connection, after, wanted, limit, limit + 1)
        if page.messages or not page.has_more:
            return page
        after = page.end
    return await _look(connection, after, wanted, limit, max(SCANNED, limit + 1))


async def _look(connection: Connection, after: FeedPosition, wanted: FeedFilter, limit: int, look_at: int) -> FeedPage:
    """Return what is wanted of the next ``look_at`` outcomes.

    OFFSET 0 keeps each message looked up by its id: a plan that was made for a small table would rather read all of it.
    """
    rows = await connection.fetch(
        """
        WITH scanned AS MATERIALIZED (
            SELECT DISTINCT position, id FROM feed_entries
            WHERE (position, last_id) > ($1::bigint, $2::uuid) AND (position, id) > ($1::bigint, $2::uuid)
              AND position < feed_end()
            ORDER BY position, id LIMIT $3
        ), wanted AS (
            SELECT m.id, m.feed_position
            FROM scanned s CROSS JOIN LATERAL (SELECT * FROM message_logs WHERE id = s.id OFFSET 0) m
            WHERE m.feed_position = s.position
              AND ($4::text IS NULL OR m.status = $4) AND ($5::text IS NULL OR m.message_type = $5)
              AND ($6::text IS NULL OR m.error_type = $6) AND ($7::uuid IS NULL OR m.user_id = $7)
              AND ($8::timestamptz IS NULL OR m.scheduled_at >= $8)
              AND ($9::timestamptz IS NULL OR m.scheduled_at < $9)
            ORDER BY m.feed_position, m.id LIMIT $10
        ), last AS (
            SELECT position, id FROM scanned ORDER BY position DESC, id DESC LIMIT 1
        )
        SELECT (SELECT count(*) FROM scanned) AS scanned, last.position AS last_position, last.id AS last_id,
               wanted.feed_position, d.*
        FROM last LEFT JOIN wanted ON true
        LEFT JOIN LATERAL (SELECT * FROM message_details WHERE id = wanted.id OFFSET 0) d ON true
        ORDER BY wanted.feed_position, wanted.id
        """,
        *after,
        look_at,
        *astuple(wanted),
        limit + 1,
    )
    found = [row for row in rows if row["id"] is not None]
    messages = [as_message(row) for row in found[:limit]]
    if len(found) > limit:
        return FeedPage(messages, FeedPosition(found[limit - 1]["feed_position"], messages[-1].id), has_more=True)
    if not rows:
        return FeedPage([], after, has_more=False)
    end = FeedPosition(rows[0]["last_position"], rows[0]["last_id"])
    return FeedPage(messages, end, has_more=rows[0]["scanned"] == look_at)


async def find_start(connection: Connection, since: datetime) -> FeedPosition:
    """Return a position before all outcomes that were stored at ``since`` or later.

    Some that were stored up to ``LATENESS`` before it follow as well. This is a binary search, of less than a hundred
    looks into the index. Outcomes are out of order by time, but one that is older than ``since`` by more than that was
    stored before it, and so was all that stands before it.
    """
    position: int = await connection.fetchval(
        """
        WITH RECURSIVE search (low, high) AS (
            SELECT (SELECT min(position) FROM outcomes), feed_end()
            UNION ALL
            SELECT CASE WHEN probe.stored_at < $1 THEN probe.position + 1 ELSE low END,
                   CASE WHEN probe.stored_at < $1 THEN high ELSE middle END
            FROM search, LATERAL (SELECT low + (high - low) / 2 AS middle) half
            LEFT JOIN LATERAL (
                SELECT position, stored_at FROM outcomes
                WHERE position >= half.middle AND position < search.high ORDER BY position LIMIT 1) probe ON true
            WHERE low < high
        )
        SELECT coalesce((SELECT low FROM search WHERE low >= high), 0)
        """,
        max(since, datetime.min.replace(tzinfo=UTC) + LATENESS) - LATENESS,
    )
    return FeedPosition(position, UUID(int=0))


async def remove_old_outcomes(pool: asyncpg.Pool, stored_before: datetime, limit: int) -> int:
    """Remove up to ``limit`` rows of the feed that are so old and whose messages are all gone; return how many."""
    async with pool.acquire() as connection:
        start = await find_start(connection, stored_before)
        status = await connection.execute(
            """
            DELETE FROM outcomes WHERE ctid = ANY(ARRAY(
                SELECT o.ctid FROM outcomes o
                WHERE o.position < $1 AND NOT EXISTS (SELECT FROM message_logs m WHERE m.id = ANY(o.ids))
                ORDER BY o.position LIMIT $2))
            """,
            start.position,
            limit,
        )
    return rows_changed(status)


async def follow_cluster(connection: Connection) -> bool:
    """Raise all further positions if the database is a restored or promoted copy; return whether it was needed."""
    raised: bool = await connection.fetchval("SELECT follow_cluster()")
    return raised
