"""Export of users: all that an import or a restore needs."""

from typing import Final
from uuid import UUID

from asyncpg import Record

from birthday.core.message import BIRTHDAY
from birthday.store.connection import Connection

COLUMNS_SECONDS: Final = 600


async def read_exported(connection: Connection, after: UUID, limit: int) -> list[Record]:
    """Return up to ``limit`` live users with ids after ``after``, in order of id, with all that an export has."""
    rows: list[Record] = await connection.fetch(
        """
        SELECT id, first_name, last_name, email, date_of_birth, timezone, external_id, locale, attributes, suppressed,
               created_at, updated_at, schedule_from, greatest(greeted_year, (
                   SELECT max(occasion_year) FROM message_logs
                   WHERE user_id = users.id AND message_type = $1 AND phase <> 'cancelled'
                     AND status = 'delivered')) AS greeted_year,
               anniversaries, anniversary_history
        FROM users LEFT JOIN LATERAL (
            SELECT json_object_agg(message_type, date) FILTER (WHERE date IS NOT NULL) AS anniversaries,
                   json_object_agg(message_type, json_build_object(
                       'scheduleFrom', anniversaries.schedule_from,
                       'greetedYear', greatest(anniversaries.greeted_year, (
                           SELECT max(occasion_year) FROM message_logs m
                           WHERE m.user_id = users.id AND m.message_type = anniversaries.message_type
                             AND m.phase <> 'cancelled' AND m.status = 'delivered')))) AS anniversary_history
            FROM anniversaries WHERE user_id = users.id
        ) yearly ON true
        WHERE deleted_at IS NULL AND id > $2 ORDER BY id LIMIT $3
        """,
        BIRTHDAY,
        after,
        limit,
    )
    return rows


async def read_extra_columns(connection: Connection) -> list[str]:
    """Return the columns that few users need, as far as one does. Reads all users."""
    columns: list[str] = await connection.fetchval(
        """
        SELECT array_remove(ARRAY[
                   CASE WHEN count(external_id) > 0 THEN 'externalId' END,
                   CASE WHEN count(locale) > 0 THEN 'locale' END,
                   CASE WHEN bool_or(suppressed) THEN 'suppressed' END,
                   CASE WHEN count(attributes) > 0 THEN 'attributes' END], NULL)
               || ARRAY(SELECT DISTINCT 'anniversaries.' || message_type FROM anniversaries
                        WHERE date IS NOT NULL AND deleted_at IS NULL ORDER BY 1)
               || ARRAY(SELECT 'anniversaryHistory' FROM anniversaries WHERE deleted_at IS NULL LIMIT 1)
        FROM users WHERE deleted_at IS NULL
        """,
        timeout=COLUMNS_SECONDS,
    )
    return columns
