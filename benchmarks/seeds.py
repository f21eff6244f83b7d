"""What must be there before a measurement begins: users, messages in any state, their ids in a queue.

The rows are made by the database. The state of a message is written as the step before would have left it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from birthday.broker import Broker
from birthday.core.ident import uuid7
from birthday.store.connection import Connection

PUBLISH_BATCH = 1000


async def make_users(connection: Connection, count: int, created_at: datetime, domain: str) -> list[UUID]:
    """Create users in UTC, born on 1 January 1990; return their ids."""
    rows = await connection.fetch(
        """
        INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                           schedule_from, created_at, updated_at)
        SELECT uuid_v7($2), 'Ada', 'Lovelace', 'ada' || number || '@' || $3, '1990-01-01', 'UTC', $2, $2, $2
        FROM generate_series(1, $1) AS number
        RETURNING id
        """,
        count,
        created_at,
        domain,
    )
    return [UUID(bytes=row["id"].bytes) for row in rows]


async def make_messages(connection: Connection, count: int, due_at: datetime, status: str) -> list[UUID]:
    """Replace all messages by ``count`` that are due at one instant, one for each of the first users; return their ids.

    Users that are missing are made.
    """
    await connection.execute("TRUNCATE message_logs")
    there = await connection.fetchval("SELECT count(*) FROM users")
    if there < count:
        domain = f"{uuid7(due_at)}.example.com"
        await make_users(connection, count - there, due_at - timedelta(days=1), domain)
    rows = await connection.fetch(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                                  queued_at, created_at, updated_at)
        SELECT uuid_v7($2), id, extract(year FROM $2)::smallint, $2::date, $2, $2 + interval '15 hours', schedule_from,
               $3, CASE WHEN $3 = 'queued' THEN $2 END, $2, $2
        FROM (SELECT id, schedule_from FROM users WHERE deleted_at IS NULL ORDER BY id LIMIT $1) recipients
        RETURNING id
        """,
        count,
        due_at,
        status,
    )
    await connection.execute("ANALYZE users, message_logs")
    return [UUID(bytes=row["id"].bytes) for row in rows]


async def spread(connection: Connection, ids: Sequence[UUID], first: datetime, gap: timedelta) -> dict[str, datetime]:
    """Let messages fall due one after the other; return when each does, by its id."""
    await connection.execute(
        """
        UPDATE message_logs m
        SET scheduled_at = $2::timestamptz + (place - 1) * $3::interval,
            ends_at = $2::timestamptz + (place - 1) * $3::interval + interval '15 hours'
        FROM unnest($1::uuid[]) WITH ORDINALITY AS places (id, place)
        WHERE m.id = places.id
        """,
        ids,
        first,
        gap,
    )
    return {str(each): first + place * gap for place, each in enumerate(ids)}


async def publish(broker: Broker, ids: Sequence[UUID]) -> None:
    """Put ids into the queue, as the dispatcher does."""
    for start in range(0, len(ids), PUBLISH_BATCH):
        await broker.publish(ids[start : start + PUBLISH_BATCH])


async def count_in(connection: Connection, status: str) -> int:
    """Return how many messages have a status."""
    count: int = await connection.fetchval("SELECT count(*) FROM message_logs WHERE status = $1", status)
    return count
