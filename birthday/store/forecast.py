"""What a forecast reads, without locks: how many fall due when, and how fast earlier peaks were delivered."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from birthday.core.forecast import DeliveryRate, Peak
from birthday.core.occasion import ZoneOccasion
from birthday.store.connection import Connection

FORECAST_SECONDS = 600
"""How long one statement may take: a day may be the birthday of all users."""

SMALLEST_BURST = 100
"""Smaller bursts are not measured, because their time says more about single messages than about the rate."""


class DateCount(NamedTuple):
    """How many live users of a zone have a date of a type on ``month * 100 + day``."""

    message_type: str
    zone: str
    month_day: int
    users: int


async def count_dates(connection: Connection) -> dict[str, dict[int, int]]:
    """Return how many dates of live users there are, by planned type and ``month * 100 + day``.

    This reads the whole index of the birthdays, but not the users: half a second for five million of them.
    """
    rows = await connection.fetch(
        """
        SELECT 'birthday' AS message_type, birth_month_day AS month_day, count(*) AS users
        FROM users WHERE deleted_at IS NULL GROUP BY birth_month_day
        UNION ALL
        SELECT a.message_type, a.month_day, count(*)
        FROM planned_types t JOIN anniversaries a ON a.message_type = t.message_type
        WHERE a.date IS NOT NULL AND a.deleted_at IS NULL GROUP BY a.message_type, a.month_day
        """,
        timeout=FORECAST_SECONDS,
    )
    counts: dict[str, dict[int, int]] = {}
    for message_type, month_day, users in rows:
        counts.setdefault(message_type, {})[month_day] = users
    return counts


async def count_dates_by_zone(
    connection: Connection, zones: Sequence[str], month_days: Sequence[int]
) -> list[DateCount]:
    """Return how many dates of live users there are in each of ``zones`` on each of ``month_days``, by planned type."""
    rows = await connection.fetch(
        """
        SELECT 'birthday' AS message_type, timezone AS zone, birth_month_day AS month_day, count(*) AS users
        FROM users
        WHERE timezone = ANY($1::text[]) AND birth_month_day = ANY($2::smallint[]) AND deleted_at IS NULL
        GROUP BY timezone, birth_month_day
        UNION ALL
        SELECT a.message_type, a.timezone, a.month_day, count(*)
        FROM planned_types t JOIN anniversaries a ON a.message_type = t.message_type
        WHERE a.timezone = ANY($1) AND a.month_day = ANY($2) AND a.date IS NOT NULL AND a.deleted_at IS NULL
        GROUP BY a.message_type, a.timezone, a.month_day
        """,
        zones,
        month_days,
        timeout=FORECAST_SECONDS,
    )
    return [DateCount(*row) for row in rows]


async def count_due(
    connection: Connection, occasions: Sequence[ZoneOccasion], after: datetime, until: datetime
) -> list[tuple[str, datetime, int]]:
    """Return how many messages fall due in ``(after, until]``, by zone and instant.

    ``occasions`` must be all occasions of that range. A planned message counts at its planned instant. Any other date
    of a planned type counts at the instant of the zone, unless there is already a message for that year. One statement
    counts both, so that a planner cannot move a date from one half to the other meanwhile.
    """
    rows = [(spec, month_day) for spec in occasions for month_day in spec.month_days]
    counts = await connection.fetch(
        """
        SELECT zone, due_at, sum(messages)::bigint AS messages FROM (
            SELECT u.timezone AS zone, m.scheduled_at AS due_at, count(*) AS messages
            FROM message_logs m
            JOIN users u ON u.id = m.user_id AND is_current(m, u)
            WHERE m.phase = 'scheduled' AND m.scheduled_at > $6 AND m.scheduled_at <= $7
            GROUP BY u.timezone, m.scheduled_at
            UNION ALL
            SELECT spec.zone, spec.due_at, count(*)
            FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::timestamptz[], $5::timestamptz[])
                AS spec (zone, month_day, year, due_at, ends_at)
            CROSS JOIN LATERAL concerned_dates(spec.zone, spec.month_day, spec.year, spec.due_at, spec.ends_at) one
            WHERE NOT EXISTS (SELECT FROM message_logs m
                              WHERE m.user_id = one.user_id AND m.message_type = one.message_type
                                AND m.occasion_year = spec.year
                                AND m.phase <> 'cancelled')
            GROUP BY spec.zone, spec.due_at
        ) half GROUP BY zone, due_at ORDER BY due_at, zone
        """,
        [spec.zone for spec, _ in rows],
        [month_day for _, month_day in rows],
        [spec.occasion.year for spec, _ in rows],
        [spec.occasion.due_at for spec, _ in rows],
        [spec.occasion.ends_at for spec, _ in rows],
        after,
        until,
        timeout=FORECAST_SECONDS,
    )
    return [(row["zone"], row["due_at"].astimezone(UTC), row["messages"]) for row in counts]


async def read_sustained_rate(connection: Connection, since: datetime, now: datetime) -> DeliveryRate | None:
    """Return the best rate at which messages that fell due together after ``since`` were delivered for a whole minute.

    A minute counts only if there were deliveries in each ten seconds of it, because an outage does not show what could
    be delivered. Only first attempts count, because retries waited for another reason. None if no burst took so long.
    """
    row = await connection.fetchrow(
        """
        SELECT scheduled_at, total, messages FROM (
            SELECT scheduled_at, total, sum(messages) OVER minute AS messages, count(*) OVER minute AS parts FROM (
                SELECT scheduled_at, date_bin('10 seconds', delivered_at, scheduled_at) AS part, count(*) AS messages,
                       sum(count(*)) OVER (PARTITION BY scheduled_at) AS total
                FROM message_logs
                WHERE scheduled_at > $1 AND scheduled_at <= $2 AND status = 'delivered' AND requeued_at IS NULL
                  AND attempts <= 1
                GROUP BY 1, 2
            ) AS parts WHERE total >= $3
            WINDOW minute AS (PARTITION BY scheduled_at ORDER BY part RANGE '50 seconds' PRECEDING)
        ) AS minutes WHERE parts = 6 ORDER BY messages DESC LIMIT 1
        """,
        since,
        now,
        SMALLEST_BURST,
        timeout=FORECAST_SECONDS,
    )
    if row is None:
        return None
    return DeliveryRate(float(row["messages"]) / 60, Peak(row["scheduled_at"].astimezone(UTC), int(row["total"])))


async def read_burst_rate(connection: Connection, since: datetime, now: datetime) -> DeliveryRate | None:
    """Return the best rate at which messages that fell due together after ``since`` were delivered.

    Such a burst is measured by its first 99 %, from the first send to the delivery of the last of them, because the
    rest were retried after a failure. None if no burst had 100 messages.
    """
    row = await connection.fetchrow(
        """
        SELECT scheduled_at, messages, per_second FROM (
            SELECT scheduled_at, count(*) AS messages,
                   (0.99 * count(*) / nullif(extract(epoch FROM
                       percentile_disc(0.99) WITHIN GROUP (ORDER BY delivered_at) - min(sent_at)), 0))::float8
                       AS per_second
            FROM message_logs
            WHERE scheduled_at > $1 AND scheduled_at <= $2 AND status = 'delivered' AND requeued_at IS NULL
            GROUP BY scheduled_at HAVING count(*) >= $3
        ) burst WHERE per_second > 0 ORDER BY per_second DESC LIMIT 1
        """,
        since,
        now,
        SMALLEST_BURST,
        timeout=FORECAST_SECONDS,
    )
    if row is None:
        return None
    burst = Peak(row["scheduled_at"].astimezone(UTC), row["messages"])
    return DeliveryRate(row["per_second"], burst, is_sustained=False)
