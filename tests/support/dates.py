"""Yearly dates besides the birthday, written to the database as another program would."""

from collections.abc import Collection
from datetime import date, datetime
from uuid import UUID

import asyncpg

from birthday.store.connection import Connection


async def add_dates(connection: Connection, message_types: Collection[str], planned_since: datetime) -> None:
    """Publish and plan these types, and give every user a date of each, in 2020."""
    for message_type in message_types:
        await publish_type(connection, message_type, planned_since)
        await connection.execute("INSERT INTO planned_types VALUES ($1, $2)", message_type, planned_since)
    await connection.execute(
        """
        INSERT INTO anniversaries (user_id, message_type, date, timezone, schedule_from, deleted_at)
        SELECT id, message_type, date '2020-01-01' + (hashtext(id::text || message_type) & 1023) % 366, timezone,
               schedule_from, deleted_at
        FROM users CROSS JOIN unnest($1::text[]) AS message_type
        """,
        message_types,
    )


async def give_date(pool: asyncpg.Pool, user_id: UUID, message_type: str, on: date) -> None:
    """Give a user a date that is as old as the user's birthday."""
    await pool.execute(
        """
        INSERT INTO anniversaries (user_id, message_type, date, timezone, schedule_from)
        SELECT id, $2, $3, timezone, schedule_from FROM users WHERE id = $1
        """,
        user_id,
        message_type,
        on,
    )


async def publish_type(connection: Connection | asyncpg.Pool, message_type: str, now: datetime) -> None:
    """Publish a template for a type, as the default for all locales."""
    await connection.execute(
        """
        WITH published AS (
            INSERT INTO templates (message_type, locale, version, message, created_at, created_by)
            VALUES ($1, 'default', 1, $1 || ': well done, {{ first_name }}', $2, 'test')
        )
        INSERT INTO active_templates (message_type, locale, version, activated_at, activated_by)
        VALUES ($1, 'default', 1, $2, 'test')
        """,
        message_type,
        now,
    )


async def plan_type(pool: asyncpg.Pool, message_type: str, since: datetime) -> None:
    """Publish a type, which is planned from now on."""
    await publish_type(pool, message_type, since)
    await pool.execute("INSERT INTO planned_types VALUES ($1, $2)", message_type, since)
