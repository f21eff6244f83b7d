"""What the audit reads, without locks: users' birthdays that were due, and messages that repeat one another."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from asyncpg import Record

from birthday.core.audit import CLOSEST, Birthday, Counterpart
from birthday.core.message import Status
from birthday.core.occasion import ZoneOccasion
from birthday.store.connection import Connection
from birthday.store.watermarks import PLANNED

AUDIT_SECONDS = 600
"""How long one statement may take: a day of all users, or the repeats of a long range."""

# A few milliseconds of work. Other tasks may run between two pieces.
_PIECE_ROWS = 200


@dataclass(frozen=True, slots=True)
class AuditedBirthday:
    """A birthday of a user or an occasion of another type, and the message of that year, if there is one."""

    user_id: UUID
    message_type: str
    message_id: UUID | None
    facts: Birthday


async def read_birthdays(
    connection: Connection, occasions: Sequence[ZoneOccasion], from_at: datetime, to_at: datetime
) -> AsyncIterator[AuditedBirthday]:
    """Yield every birthday of ``occasions`` that was due in ``[from_at, to_at)``, in order of time.

    All users count, also those who were deleted after the birthday was due. Runs within the caller's transaction. It is
    one statement, so that a concurrent change of a user and the message of that change are seen together.
    """
    rows = [(spec, month_day) for spec in occasions for month_day in spec.month_days]
    cursor = connection.cursor(
        """
        WITH spec AS (
            SELECT zone, month_day, year, due_at, ends_at, day
            FROM unnest($1::text[], $2::smallint[], $3::smallint[], $4::timestamptz[], $5::timestamptz[], $8::date[])
                AS spec (zone, month_day, year, due_at, ends_at, day)
        ), celebrating AS (
            -- Birthdays and others, each in two halves, because each half has an index.
            SELECT u.id AS user_id, 'birthday' AS message_type, u.date_of_birth AS date, u.created_at, u.schedule_from,
                   u.deleted_at, u.greeted_year, u.recalled_year, timestamptz '-infinity' AS planned_since, spec.*
            FROM spec JOIN users u
                ON u.timezone = spec.zone AND u.birth_month_day = spec.month_day AND u.deleted_at IS NULL
            UNION ALL
            SELECT u.id, 'birthday', u.date_of_birth, u.created_at, u.schedule_from,
                   u.deleted_at, u.greeted_year, u.recalled_year, '-infinity', spec.*
            FROM spec JOIN users u
                ON u.timezone = spec.zone AND u.birth_month_day = spec.month_day AND u.deleted_at > $6
            UNION ALL
            SELECT a.user_id, a.message_type, a.date, u.created_at, a.schedule_from,
                   NULL, a.greeted_year, a.recalled_year, t.planned_since, spec.*
            FROM spec CROSS JOIN planned_types t
            JOIN anniversaries a ON a.message_type = t.message_type AND a.timezone = spec.zone
                AND a.month_day = spec.month_day AND a.date IS NOT NULL AND a.deleted_at IS NULL
            JOIN users u ON u.id = a.user_id
            UNION ALL
            SELECT a.user_id, a.message_type, a.date, u.created_at, a.schedule_from,
                   u.deleted_at, a.greeted_year, a.recalled_year, t.planned_since, spec.*
            FROM users u JOIN anniversaries a ON a.user_id = u.id AND a.date IS NOT NULL AND u.deleted_at > $6
            JOIN planned_types t USING (message_type)
            JOIN spec ON a.timezone = spec.zone AND a.month_day = spec.month_day
        ), due AS (
            SELECT user_id, message_type, year, day, greatest(due_at, schedule_from, planned_since) AS due_at,
                   created_at, schedule_from, deleted_at, greeted_year, recalled_year
            FROM celebrating
            WHERE schedule_from < ends_at AND planned_since < ends_at AND extract(year FROM date) < year
              AND greatest(due_at, schedule_from, planned_since) >= $6
              AND greatest(due_at, schedule_from, planned_since) < $7
              AND (deleted_at IS NULL OR deleted_at > greatest(due_at, schedule_from, planned_since))
        )
        SELECT DISTINCT ON (due.due_at, due.user_id, due.message_type)
               due.user_id, due.message_type, due.year, due.day, due.due_at, due.created_at, due.schedule_from,
               due.deleted_at, due.greeted_year, coalesce(due.recalled_year = due.year, false) AS was_recalled,
               answer.id AS message_id, answer.status, answer.occasion_on,
               answer.schedule_from AS planned_from, answer.delivered_at, answer.scheduled_at, answer.sent_at,
               answer.requeued_at IS NOT NULL AS requeued,
               answer.may_have_arrived OR answer.schedule_from > answer.created_at AS taken_over,
               answer.id IS NULL AND EXISTS (
                   SELECT FROM message_logs m
                   WHERE m.user_id = due.user_id AND m.phase = 'cancelled' AND m.message_type = due.message_type
                     AND m.occasion_year = due.year AND m.schedule_from = due.schedule_from) AS was_cancelled,
               answer.id IS NULL AND EXISTS (
                   SELECT FROM message_logs m
                   WHERE m.user_id = due.user_id AND m.phase = 'cancelled' AND m.message_type = due.message_type
                     AND m.occasion_year = due.year
                     -- What may have arrived took the year, and no move has changed that.
                     AND (m.schedule_from = due.schedule_from OR m.may_have_arrived)
                     AND m.error_detail = 'suppressed') AS was_suppressed,
               -- What the move itself cancelled was replaced at once.
               CASE WHEN answer.id IS NULL THEN (
                   SELECT max(m.updated_at) FROM message_logs m
                   WHERE m.user_id = due.user_id AND m.phase = 'cancelled' AND m.message_type = due.message_type
                     AND m.occasion_year = due.year AND m.schedule_from <> due.schedule_from
                     AND m.updated_at <> due.schedule_from) END AS dropped_at
        FROM due LEFT JOIN message_logs answer
            ON answer.user_id = due.user_id AND answer.message_type = due.message_type
           AND answer.occasion_year = due.year AND answer.phase <> 'cancelled'
        ORDER BY due.due_at, due.user_id, due.message_type, answer.delivered_at, answer.status <> 'delivered'
        """,
        [spec.zone for spec, _ in rows],
        [month_day for _, month_day in rows],
        [spec.occasion.year for spec, _ in rows],
        [spec.occasion.due_at for spec, _ in rows],
        [spec.occasion.ends_at for spec, _ in rows],
        from_at,
        to_at,
        [spec.occasion.on for spec, _ in rows],
        prefetch=_PIECE_ROWS,
        timeout=AUDIT_SECONDS,
    )
    async for row in cursor:
        yield AuditedBirthday(row["user_id"], row["message_type"], row["message_id"], _facts(row))


@dataclass(frozen=True, slots=True)
class RepeatedMessage:
    """A message that repeats the message ``first_id``; None if retention has removed that one."""

    id: UUID
    user_id: UUID
    message_type: str
    year: int
    scheduled_at: datetime
    status: Status
    first_id: UUID | None


async def read_repeats(
    connection: Connection, from_at: datetime, to_at: datetime, kept_from: datetime
) -> AsyncIterator[RepeatedMessage]:
    """Yield every message that repeats another one of its user, where either of the two is due in the range.

    Two messages for the same year or the same date repeat each other if each was delivered, may have arrived, or is not
    cancelled. Two messages for different years repeat each other if both were delivered within 300 days and neither
    date of birth nor zone had moved in between. The later one is the repeat. A message for the ``greeted_year`` of its
    user is a repeat as well if the user is older than ``kept_from``, because retention may have removed the first one.
    """
    cursor = connection.cursor(
        """
        SELECT DISTINCT ON (repeat.scheduled_at, repeat.id)
               repeat.id, repeat.user_id, repeat.message_type, repeat.occasion_year, repeat.scheduled_at, repeat.status,
               pair.first_id
        FROM (
            SELECT CASE WHEN is_first THEN other_id ELSE one_id END AS id,
                   CASE WHEN is_first THEN one_id ELSE other_id END AS first_id
            FROM (
                SELECT one.id AS one_id, other.id AS other_id,
                       (one.scheduled_at, one.id) < (other.scheduled_at, other.id) AS is_first
                FROM message_logs one
                JOIN message_logs other
                    ON other.user_id = one.user_id AND other.message_type = one.message_type AND other.id <> one.id
                   AND (other.occasion_year = one.occasion_year OR other.occasion_on = one.occasion_on
                        OR other.schedule_from = one.schedule_from
                           AND one.delivered_at IS NOT NULL AND other.delivered_at IS NOT NULL
                           AND least(other.scheduled_at, other.delivered_at)
                               - least(one.scheduled_at, one.delivered_at) BETWEEN -$4::interval AND $4::interval
                           -- What was taken over by a move is on its old date.
                           AND NOT (one.may_have_arrived OR one.schedule_from > one.created_at)
                           AND NOT (other.may_have_arrived OR other.schedule_from > other.created_at))
                WHERE one.scheduled_at >= $1 AND one.scheduled_at < $2
                  AND (one.status <> 'cancelled' OR one.delivered_at IS NOT NULL OR one.may_have_arrived)
                  -- In two halves, because each of the two indexes by user holds one.
                  AND (other.phase <> 'cancelled'
                       OR other.phase = 'cancelled' AND (other.delivered_at IS NOT NULL OR other.may_have_arrived))
            ) one_and_other
            UNION ALL
            SELECT m.id, NULL FROM message_logs m JOIN users u ON u.id = m.user_id
            LEFT JOIN anniversaries a ON a.user_id = m.user_id AND a.message_type = m.message_type
            WHERE m.scheduled_at >= $1 AND m.scheduled_at < $2
              AND (m.status <> 'cancelled' OR m.delivered_at IS NOT NULL)
              AND CASE WHEN m.message_type = 'birthday' THEN u.greeted_year ELSE a.greeted_year END = m.occasion_year
              AND u.created_at < $3
        ) pair JOIN message_logs repeat ON repeat.id = pair.id
        ORDER BY repeat.scheduled_at, repeat.id, pair.first_id
        """,
        from_at,
        to_at,
        kept_from,
        CLOSEST,
        prefetch=_PIECE_ROWS,
        timeout=AUDIT_SECONDS,
    )
    async for row in cursor:
        yield RepeatedMessage(
            row["id"],
            row["user_id"],
            row["message_type"],
            row["occasion_year"],
            row["scheduled_at"],
            Status(row["status"]),
            row["first_id"],
        )


async def read_noted_rules(connection: Connection) -> tuple[str | None, datetime | None]:
    """Return the rules by which messages are planned, and since when, as the planner has stored them."""
    row = await connection.fetchrow("SELECT rules, rules_since FROM watermarks WHERE name = $1", PLANNED)
    return (None, None) if row is None else (row["rules"], row["rules_since"])


@dataclass(frozen=True, slots=True)
class Population:
    """The users of one zone: how many are live, and the earliest ``schedule_from`` of all, deleted ones included."""

    zone: str
    live_users: int
    since: datetime


async def read_populations(connection: Connection) -> list[Population]:
    """Return the population of every zone. Reads all users and dates."""
    rows = await connection.fetch(
        """
        SELECT timezone, count(*) FILTER (WHERE is_live_user) AS live_users, min(schedule_from) AS since
        FROM (SELECT timezone, schedule_from, deleted_at IS NULL AS is_live_user FROM users
              UNION ALL SELECT timezone, schedule_from, false FROM anniversaries) dates
        GROUP BY timezone ORDER BY timezone
        """,
        timeout=AUDIT_SECONDS,
    )
    return [Population(row["timezone"], row["live_users"], row["since"]) for row in rows]


def _facts(row: Record) -> Birthday:
    return Birthday(
        due_at=row["due_at"],
        year=row["year"],
        on=row["day"],
        created_at=row["created_at"],
        schedule_from=row["schedule_from"],
        deleted_at=row["deleted_at"],
        greeted_year=row["greeted_year"],
        answer=_answer(row) if row["message_id"] else None,
        was_cancelled=row["was_cancelled"],
        was_suppressed=row["was_suppressed"],
        was_recalled=row["was_recalled"],
        dropped_at=row["dropped_at"],
    )


def _answer(row: Record) -> Counterpart:
    return Counterpart(
        Status(row["status"]),
        row["occasion_on"],
        row["planned_from"],
        row["delivered_at"],
        row["taken_over"],
        row["scheduled_at"],
        row["sent_at"],
        row["requeued"],
    )
