"""What an explanation reads of one user: the dates, and the messages of one year."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from birthday.errors import NotFoundError
from birthday.store.connection import Connection


@dataclass(frozen=True, slots=True)
class ExplainedUser:
    """A user, live or deleted."""

    id: UUID
    zone: str
    created_at: datetime
    deleted_at: datetime | None
    suppressed: bool


@dataclass(frozen=True, slots=True)
class ExplainedDate:
    """A yearly date of a user. ``day`` is None if the user has it no more; ``planned_since`` is None for a birthday.

    ``recalled_year`` is the year that an earlier user of the same person was greeted in.
    """

    message_type: str
    day: date | None
    schedule_from: datetime
    greeted_year: int
    recalled_year: int | None
    is_planned: bool
    planned_since: datetime | None


@dataclass(frozen=True, slots=True)
class ExplainedMessage:
    """A message, as far as it explains what came of an occasion."""

    id: UUID
    status: str
    scheduled_at: datetime
    ends_at: datetime
    schedule_from: datetime
    attempts: int
    next_attempt_at: datetime | None
    sent_at: datetime | None
    delivered_at: datetime | None
    error_type: str | None
    error_detail: str | None
    may_have_arrived: bool
    updated_at: datetime


async def find_user(connection: Connection, who: str) -> ExplainedUser:
    """Return the user with an id, an e-mail address or an external id; a live one before those that were deleted.

    Raises:
        NotFoundError: if there is none, or retention has removed it.
    """
    # In parts, because each kind of key has an index of live users. Deleted users are found by their own index.
    row = await connection.fetchrow(
        """
        SELECT id, timezone, created_at, deleted_at, suppressed FROM (
            SELECT id, timezone, created_at, deleted_at, suppressed FROM users WHERE id = $2
            UNION ALL
            SELECT id, timezone, created_at, deleted_at, suppressed FROM users
            WHERE lower(email) = lower($1) AND deleted_at IS NULL
            UNION ALL
            SELECT id, timezone, created_at, deleted_at, suppressed FROM users
            WHERE external_id = $1 AND deleted_at IS NULL
            UNION ALL
            SELECT id, timezone, created_at, deleted_at, suppressed FROM users
            WHERE deleted_at IS NOT NULL AND (lower(email) = lower($1) OR external_id = $1)
        ) found ORDER BY deleted_at DESC NULLS FIRST LIMIT 1
        """,
        who,
        _id(who),
    )
    if row is None:
        detail = f"there is no user '{who}'; an id, an e-mail address or an externalId is accepted"
        raise NotFoundError(detail, "unknown_user")
    return ExplainedUser(*row)


async def read_dates(connection: Connection, user_id: UUID) -> list[ExplainedDate]:
    """Return the birthday of a user, then the other dates, by type."""
    rows = await connection.fetch(
        """
        SELECT 'birthday', date_of_birth, schedule_from, greeted_year, recalled_year, true, NULL
        FROM users WHERE id = $1
        UNION ALL
        (SELECT a.message_type, a.date, a.schedule_from, a.greeted_year, a.recalled_year, t.message_type IS NOT NULL,
                t.planned_since
         FROM anniversaries a LEFT JOIN planned_types t USING (message_type)
         WHERE a.user_id = $1 ORDER BY a.message_type)
        """,
        user_id,
    )
    return [ExplainedDate(*row) for row in rows]


async def read_messages_of_year(
    connection: Connection, user_id: UUID, message_type: str, year: int
) -> list[ExplainedMessage]:
    """Return the messages of a year, also cancelled ones; the last planned is the last."""
    rows = await connection.fetch(
        """
        SELECT id, status, scheduled_at, ends_at, schedule_from, attempts, next_attempt_at, sent_at, delivered_at,
               error_type, error_detail, may_have_arrived, updated_at
        FROM message_logs
        -- In two halves, because each of the two indexes by user holds one.
        WHERE (user_id = $1 AND phase <> 'cancelled' OR user_id = $1 AND phase = 'cancelled')
          AND message_type = $2 AND occasion_year = $3
        ORDER BY status <> 'cancelled', created_at, id
        """,
        user_id,
        message_type,
        year,
    )
    return [ExplainedMessage(*row) for row in rows]


def _id(who: str) -> UUID | None:
    try:
        return UUID(who)
    except ValueError:
        return None
