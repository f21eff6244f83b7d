"""Lists of deleted users: read them, and delete the users again after the restore of a backup."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from asyncpg.cursor import Cursor

from birthday.store.changes import DELETED, USER, Actor, record_changes
from birthday.store.connection import Connection
from birthday.store.users import delete_anniversaries


async def open_deletions(connection: Connection) -> Cursor:
    """Open a cursor over the deleted users whom retention has not removed yet. Runs within the caller's transaction."""
    return await connection.cursor(
        "SELECT id, deleted_at FROM users WHERE deleted_at IS NOT NULL ORDER BY deleted_at, id"
    )


async def delete_again(
    connection: Connection, ids: Sequence[UUID], now: datetime, by: Actor
) -> tuple[Sequence[UUID], int]:
    """Delete those of ``ids`` that are live users; return them, and how many pending messages were cancelled.

    Runs within the caller's transaction.
    """
    # Locked in order of id, so that two such statements cannot deadlock.
    [row] = await connection.fetch(
        """
        WITH held AS MATERIALIZED (
            SELECT id FROM users WHERE id = ANY($1) AND deleted_at IS NULL ORDER BY id FOR UPDATE
        ), deleted AS (
            UPDATE users SET deleted_at = $2, updated_at = $2 FROM held WHERE users.id = held.id RETURNING users.id
        ), cancelled AS (
            UPDATE message_logs SET status = 'cancelled', updated_at = $2, next_attempt_at = NULL
            FROM deleted
            WHERE user_id = deleted.id AND phase <> 'cancelled' AND status IN ('scheduled', 'queued', 'retrying')
            RETURNING message_logs.id
        )
        SELECT ARRAY(SELECT id FROM deleted) AS users, (SELECT count(*) FROM cancelled) AS messages
        """,
        ids,
        now,
    )
    await delete_anniversaries(connection, ids)
    await record_changes(connection, [by.change(DELETED, USER, user_id) for user_id in row["users"]], now)
    return row["users"], row["messages"]
