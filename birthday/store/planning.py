"""Step 1, plan: messages for everybody whom an occasion concerns, and messages that move."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from birthday.core.occasion import ZoneOccasion
from birthday.store.connection import Connection, rows_changed
from birthday.store.watermarks import PLANNED

PLAN_SECONDS = 600
"""How long one planning statement may take: after a long downtime it covers millions of users."""


async def is_planned_otherwise(pool: asyncpg.Pool, rules: str) -> bool:
    """Say whether there may be scheduled messages that were planned by other rules than these."""
    otherwise: bool = await pool.fetchval(
        """
        SELECT NOT EXISTS (SELECT FROM watermarks WHERE name = $1 AND rules = $2)
           AND EXISTS (SELECT FROM message_logs WHERE phase = 'scheduled')
        """,
        PLANNED,
        rules,
    )
    return otherwise


async def read_rules(pool: asyncpg.Pool) -> tuple[str | None, datetime | None]:
    """Return the rules by which everything is planned, and since when; None if none are stored."""
    row = await pool.fetchrow("SELECT rules, rules_since FROM watermarks WHERE name = $1", PLANNED)
    return (None, None) if row is None else (row["rules"], row["rules_since"])


async def last_scheduled(connection: Connection) -> datetime | None:
    """Return when the last ``scheduled`` message falls due; None if there is none."""
    last: datetime | None = await connection.fetchval(
        "SELECT max(scheduled_at) FROM message_logs WHERE phase = 'scheduled'"
    )
    return last


async def note_rules(connection: Connection, rules: str, now: datetime) -> None:
    """Store the rules by which everything is planned, and since when; ``lock_watermark`` must hold the watermark."""
    await connection.execute(
        "UPDATE watermarks SET rules = $2, rules_since = $3 WHERE name = $1 AND rules IS DISTINCT FROM $2",
        PLANNED,
        rules,
        now,
    )


async def zones_in_use(connection: Connection) -> list[str]:
    """Return the zones of all live users. This costs one index probe for each zone, however many users there are."""
    rows = await connection.fetch(
        """
        WITH RECURSIVE zone AS (
            (SELECT timezone FROM users WHERE deleted_at IS NULL ORDER BY timezone LIMIT 1)
            UNION ALL
            SELECT (SELECT u.timezone FROM users u
                    WHERE u.deleted_at IS NULL AND u.timezone > zone.timezone ORDER BY u.timezone LIMIT 1)
            FROM zone WHERE zone.timezone IS NOT NULL
        )
        SELECT timezone FROM zone WHERE timezone IS NOT NULL
        """
    )
    return [row["timezone"] for row in rows]


async def note_planned_types(connection: Connection, message_types: Sequence[str], now: datetime) -> list[str]:
    """Store which types besides birthday are planned, and return those that were not planned before."""
    rows = await connection.fetch(
        """
        WITH withdrawn AS (DELETE FROM planned_types WHERE message_type <> ALL($1::text[]))
        INSERT INTO planned_types (message_type, planned_since) SELECT message_type, $2
        FROM unnest($1::text[]) AS message_type
        ON CONFLICT DO NOTHING
        RETURNING message_type
        """,
        message_types,
        now,
    )
    return [row["message_type"] for row in rows]


async def read_planned_types(connection: Connection) -> list[str]:
    """Return the types besides birthday that are planned."""
    return [row["message_type"] for row in await connection.fetch("SELECT message_type FROM planned_types")]


async def plan(
    connection: Connection,
    occasions: Sequence[ZoneOccasion],
    now: datetime,
    late: datetime,
    traceparent: str | None = None,
    only: Sequence[UUID] | None = None,
) -> int:
    """Materialise a message for each date of ``occasions`` that has none for that year; return how many.

    The dates are those of all planned types. Whoever is greeted at ``late`` or before is left out. Safe to run
    concurrently and repeatedly, because the unique index on user, type and year decides. A message that was cancelled
    by hand stays cancelled, because its id exists. If a user changes meanwhile, at worst there is a stale message,
    which the claim recognises by its ``schedule_from``. ``traceparent`` is the context of the tick, if that is traced.
    If ``only`` is given, only these users count.
    """
    status = await connection.execute(
        """
        INSERT INTO message_plans SELECT planned.*
        FROM unnest($2::text[], $3::smallint[], $4::smallint[], $5::date[], $6::timestamptz[], $7::timestamptz[])
            AS spec (zone, month_day, year, day, due_at, ends_at)
        CROSS JOIN LATERAL concerned_dates(spec.zone, spec.month_day, spec.year, spec.due_at, spec.ends_at) one
        CROSS JOIN LATERAL plan_message(
            one.user_id, one.message_type, one.schedule_from, spec.year, spec.day, one.greeted_at, spec.ends_at,
            $1, $8) planned
        WHERE one.greeted_at > $10 AND ($9::uuid[] IS NULL OR one.user_id = ANY($9))
        ON CONFLICT DO NOTHING
        """,
        now,
        *_columns(occasions),
        traceparent,
        only,
        late,
        timeout=PLAN_SECONDS,
    )
    return rows_changed(status)


async def users_concerned(connection: Connection, occasion: ZoneOccasion) -> list[UUID]:
    """Return the live users of an occasion, of any planned type, with or without a message."""
    rows = await connection.fetch(
        """
        SELECT id FROM users
        WHERE timezone = $1 AND birth_month_day = ANY($2::smallint[]) AND deleted_at IS NULL
        UNION
        SELECT a.user_id FROM planned_types JOIN anniversaries a USING (message_type)
        WHERE a.timezone = $1 AND a.month_day = ANY($2::smallint[]) AND a.date IS NOT NULL AND a.deleted_at IS NULL
        """,
        occasion.zone,
        list(occasion.month_days),
    )
    return [row["id"] for row in rows]


async def move(connection: Connection, occasions: Sequence[ZoneOccasion], now: datetime) -> int:
    """Move messages that were planned by other rules to the instants of ``occasions``; return how many.

    Only messages that are not due and not queued yet move, and none moves to a day that is over. If the new instant has
    passed, the message is due now. If a dispatcher or a change of the user holds a row, the statement waits for it, and
    then checks the row's ``status`` again.
    """
    status = await connection.execute(
        """
        UPDATE message_logs m
        SET scheduled_at = greatest(one.greeted_at, $1), ends_at = spec.ends_at, occasion_on = spec.day, updated_at = $1
        FROM unnest($2::text[], $3::smallint[], $4::smallint[], $5::date[], $6::timestamptz[], $7::timestamptz[])
            AS spec (zone, month_day, year, day, due_at, ends_at)
        CROSS JOIN LATERAL concerned_dates(spec.zone, spec.month_day, spec.year, spec.due_at, spec.ends_at) one
        WHERE m.user_id = one.user_id AND m.message_type = one.message_type AND m.occasion_year = spec.year
          AND m.phase = 'scheduled' AND m.status = 'scheduled' AND m.scheduled_at > $1
          AND m.schedule_from = one.schedule_from AND m.scheduled_at <> one.greeted_at AND spec.ends_at > $1
        """,
        now,
        *_columns(occasions),
        timeout=PLAN_SECONDS,
    )
    return rows_changed(status)


def _columns(occasions: Sequence[ZoneOccasion]) -> tuple[Sequence[object], ...]:
    """Return zones, days, years, dates, instants and ends as columns, a row for each ``month * 100 + day``."""
    rows = [(spec.zone, month_day, spec.occasion) for spec in occasions for month_day in spec.month_days]
    return (
        [zone for zone, _, _ in rows],
        [month_day for _, month_day, _ in rows],
        [occasion.year for _, _, occasion in rows],
        [occasion.on for _, _, occasion in rows],
        [occasion.due_at for _, _, occasion in rows],
        [occasion.ends_at for _, _, occasion in rows],
    )
