"""Whose day it is: the dates that are celebrated in some zones, with the state of their messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from birthday.core.message import BIRTHDAY, Status
from birthday.store.connection import Connection

OCCASIONS_SECONDS = 60
"""How long one statement may take: a day may be the birthday of all users."""


@dataclass(frozen=True, slots=True)
class Celebrated:
    """Which dates are meant: those of ``types`` on ``month_days``, of users who had them before ``year``."""

    types: Sequence[str]
    month_days: Sequence[int]
    year: int

    def arguments(self) -> tuple[object, ...]:
        """Return what the statements take."""
        others = [name for name in self.types if name != BIRTHDAY]
        return BIRTHDAY in self.types, others, list(self.month_days), date(self.year, 1, 1)


@dataclass(frozen=True, slots=True)
class CelebratedDate:
    """A yearly date of a live user, and the message of the year, if there is one."""

    zone: str
    user_id: UUID
    message_type: str
    first_name: str
    last_name: str
    date: date
    suppressed: bool
    schedule_from: datetime
    greeted_year: int
    message_id: UUID | None
    status: Status | None
    scheduled_at: datetime | None


async def count_by_zone(
    connection: Connection, zones: Sequence[str], celebrated: Celebrated, most: int | None = None
) -> dict[str, int]:
    """Return how many dates there are in each of ``zones`` that has any, counting up to ``most`` in each."""
    rows = await connection.fetch(
        """
        SELECT zone, dates FROM unnest($1::text[]) AS zone CROSS JOIN LATERAL (
            SELECT count(*) AS dates FROM (
                SELECT FROM users u
                WHERE $2 AND u.timezone = zone AND u.birth_month_day = ANY($4::smallint[]) AND u.deleted_at IS NULL
                  AND u.date_of_birth < $5
                UNION ALL
                SELECT FROM anniversaries a
                WHERE a.message_type = ANY($3::text[]) AND a.timezone = zone AND a.month_day = ANY($4::smallint[])
                  AND a.date IS NOT NULL AND a.deleted_at IS NULL AND a.date < $5
                LIMIT $6) few) counted
        WHERE dates > 0
        """,
        zones,
        *celebrated.arguments(),
        most,
        timeout=OCCASIONS_SECONDS,
    )
    return {row["zone"]: row["dates"] for row in rows}


async def list_celebrated(
    connection: Connection, zones: Sequence[str], celebrated: Celebrated, after: tuple[UUID, str], limit: int
) -> list[CelebratedDate]:
    """Return up to ``limit`` dates in order of ``zones``, then of user and type.

    Those of the first zone begin after the user and type ``after``.
    """
    rows = await connection.fetch(
        """
        SELECT page.zone, page.user_id, page.message_type, first_name, last_name, date, suppressed, schedule_from,
               greeted_year, message.id AS message_id, message.status, message.scheduled_at
        FROM (
            SELECT given.place, given.zone, one.user_id, one.message_type, u.first_name, u.last_name, one.date,
                   u.suppressed, one.schedule_from, one.greeted_year
            FROM unnest($1::text[]) WITH ORDINALITY AS given (zone, place)
            CROSS JOIN LATERAL (
                SELECT u.id AS user_id, 'birthday' AS message_type, u.date_of_birth AS date, u.schedule_from,
                       u.greeted_year
                FROM users u
                WHERE $2 AND u.timezone = given.zone AND u.birth_month_day = ANY($4::smallint[])
                  AND u.deleted_at IS NULL AND u.date_of_birth < $5
                UNION ALL
                SELECT a.user_id, a.message_type, a.date, a.schedule_from, a.greeted_year FROM anniversaries a
                WHERE a.message_type = ANY($3::text[]) AND a.timezone = given.zone
                  AND a.month_day = ANY($4::smallint[]) AND a.date IS NOT NULL AND a.deleted_at IS NULL AND a.date < $5
                -- Otherwise the planner could read all users of all zones, and join them.
                OFFSET 0) one
            JOIN users u ON u.id = one.user_id
            WHERE given.place > 1 OR (one.user_id, one.message_type COLLATE "C") > ($6, $7)
            ORDER BY given.place, one.user_id, one.message_type COLLATE "C" LIMIT $8) page
        LEFT JOIN LATERAL (
            SELECT m.id, m.status, m.scheduled_at FROM message_logs m
            -- In two halves, because each of the two indexes by user holds one.
            WHERE (m.user_id = page.user_id AND m.phase <> 'cancelled'
                   OR m.user_id = page.user_id AND m.phase = 'cancelled')
              AND m.message_type = page.message_type AND m.occasion_year = $9
            ORDER BY m.status = 'cancelled', m.created_at DESC LIMIT 1) message ON true
        ORDER BY page.place, page.user_id, page.message_type COLLATE "C"
        """,
        zones,
        *celebrated.arguments(),
        *after,
        limit,
        celebrated.year,
        timeout=OCCASIONS_SECONDS,
    )
    return [CelebratedDate(**dict(row)) for row in rows]
