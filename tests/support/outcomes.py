"""Messages whose outcomes a test writes itself, as the program does it: by one UPDATE."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from birthday.core.ident import uuid7
from birthday.store.connection import Connection
from tests.support.message_service import MessageService

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)


async def store_queued(pool: asyncpg.Pool, count: int, *, at: datetime = NOW) -> list[UUID]:
    """Store queued messages that were planned for ``at``, each of a user who is gone; return their ids.

    Beside a running program that is the present: its janitor expires what is late.
    """
    ids = [uuid7(NOW) for _ in range(count)]
    await pool.execute(
        """
        INSERT INTO message_logs (id, user_id, message_type, occasion_year, occasion_on, scheduled_at, ends_at,
                                  schedule_from, status, created_at, updated_at)
        SELECT id, gen_random_uuid(), 'birthday', 2026, '2026-03-01', $2, $2, $2, 'queued', $2, $2
        FROM unnest($1::uuid[]) AS id
        """,
        ids,
        at,
    )
    return ids


async def finish(
    connection: Connection | asyncpg.Pool,
    ids: Sequence[UUID],
    status: str = "delivered",
    *,
    at: datetime = NOW,
    error_type: str | None = None,
) -> None:
    """Write an outcome; it is the message's ``attempts``-th."""
    await connection.execute(
        """
        UPDATE message_logs SET status = $2, updated_at = $3, error_type = $4, attempts = attempts + 1
        WHERE id = ANY($1::uuid[])
        """,
        ids,
        status,
        at,
        error_type,
    )


def events_to(receiver: MessageService) -> dict[str, str]:
    """Return the settings with which a process sends delivery events to ``receiver``."""
    return {
        "EVENTS_URL": f"{receiver.url}/events",
        "EVENTS_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "EVENTS_ALLOW_PRIVATE": "true",
    }
