"""Users, and the planning that follows from a change of a user, in the same transaction.

Invariant 5 holds throughout: each change is a guarded UPDATE, and zero rows is a normal answer.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from birthday.core.message import BIRTHDAY
from birthday.core.occasion import Rules
from birthday.core.plan import (
    PlannedMessage,
    Upcoming,
    YearlyDate,
    last_dates_over,
    planned_messages,
    upcoming_occasions,
)
from birthday.core.user import NO_EXTRAS, Extras, Profile
from birthday.errors import ConflictError, InvalidInputError, NotFoundError
from birthday.store.changes import DELETED, USER, Actor, profile_changes, record_changes
from birthday.store.connection import Connection, borrow


class User(NamedTuple):
    """A live user as stored. Instants are aware UTC; ``upcoming`` is the next occasion of each date, in order."""

    id: UUID
    profile: Profile
    upcoming: Sequence[Upcoming]
    created_at: datetime
    updated_at: datetime

    @property
    def next_message_at(self) -> datetime | None:
        """When the first message of any type is due; None if there will be none."""
        return min((one.due_at for one in self.upcoming if one.due_at), default=None)


@dataclass(frozen=True, slots=True)
class Planning:
    """What planning depends on besides the user: the installation's rules and how far ahead messages are made."""

    rules: Rules
    horizon: timedelta


@dataclass(frozen=True, slots=True)
class Replanned:
    """What a change of a user did to the messages: how many were materialised, and how many cancelled."""

    planned: int = 0
    cancelled: int = 0


async def read_users(connection: Connection, ids: Sequence[UUID], now: datetime, rules: Rules) -> list[User]:
    """Return those of ``ids`` that are live users, in order of id."""
    # The sub-select hides the array from PostgreSQL's planner. Otherwise it would make a new plan for each call with
    # few ids, which takes longer than reading the users.
    rows = await connection.fetch(
        """
        SELECT u.id, u.first_name, u.last_name, u.email, u.date_of_birth, u.timezone, u.external_id, u.locale,
               u.attributes, u.suppressed, u.schedule_from, u.greeted_year, u.created_at, u.updated_at,
               message.pending_at, message.pending_on, message.taken_years, (
                   SELECT array_agg(ROW(a.message_type, a.date, t.planned_since, a.schedule_from, a.greeted_year,
                                        m.pending_at, m.pending_on, m.taken_years))
                   FROM anniversaries a LEFT JOIN planned_types t USING (message_type)
                   CROSS JOIN LATERAL message_summary(u.id, a.message_type, a.schedule_from) m
                   WHERE a.user_id = u.id AND a.date IS NOT NULL) AS others
        FROM users u CROSS JOIN LATERAL message_summary(u.id, 'birthday', u.schedule_from) message
        WHERE u.id = ANY(ARRAY(SELECT unnest($1::uuid[]))) AND u.deleted_at IS NULL
        ORDER BY u.id
        """,
        ids,
    )
    return [_user(row, now, rules) for row in rows]


async def list_ids(connection: Connection, after: UUID | None, limit: int) -> list[UUID]:
    """Return up to ``limit`` ids of live users after ``after``, in order of id, which is the order of creation."""
    rows = await connection.fetch(
        "SELECT id FROM users WHERE deleted_at IS NULL AND id > $1 ORDER BY id LIMIT $2", after or UUID(int=0), limit
    )
    return [row["id"] for row in rows]


async def lock_profile(connection: Connection, user_id: UUID) -> Profile:
    """Return a live user's profile and hold its row until the transaction ends.

    Raises:
        NotFoundError: if there is no such live user.
    """
    row = await connection.fetchrow(
        """
        SELECT first_name, last_name, email, date_of_birth, timezone, external_id, locale, attributes, suppressed
        FROM users WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
        """,
        user_id,
    )
    if row is None:
        raise unknown_user(user_id)
    # A statement of its own, so that it sees the dates of a change that the one before has waited for.
    rows = await connection.fetch(
        "SELECT message_type, date FROM anniversaries WHERE user_id = $1 AND date IS NOT NULL", user_id
    )
    return profile_of(row, {other["message_type"]: other["date"] for other in rows})


async def replace_profile(
    connection: Connection,
    user_id: UUID,
    old: Profile,
    new: Profile,
    now: datetime,
    planning: Planning,
    by: Actor,
    traceparent: str | None = None,
) -> Replanned:
    """Store ``new`` for a user whose row is held by ``lock_profile``; a moved birthday or zone moves the message.

    What differs is recorded as a change. ``traceparent`` is the context of the request, if that is traced.

    Raises:
        ConflictError: if another live user has the e-mail address.
    """
    moved = (old.date_of_birth, old.zone) != (new.date_of_birth, new.zone)
    try:
        suppressed = await connection.fetchval(
            """
            UPDATE users SET first_name = $2, last_name = $3, email = $4, date_of_birth = $5, timezone = $6,
                             external_id = $7, locale = $8, attributes = $9, suppressed = $10, updated_at = $11,
                             -- Strictly increasing: identifies the version of the schedule.
                             schedule_from = CASE WHEN $12 THEN greatest($11, schedule_from + interval '1 us')
                                                  ELSE schedule_from END
            WHERE id = $1 RETURNING suppressed
            """,
            user_id,
            new.first_name,
            new.last_name,
            new.email,
            new.date_of_birth,
            new.zone,
            new.extras.external_id,
            new.extras.locale,
            attributes_text(new),
            new.extras.suppressed,
            now,
            moved,
        )
    except asyncpg.UniqueViolationError as error:
        raise conflict(error, new) from None
    await record_changes(connection, profile_changes(by, user_id, old, new), now)
    moved_types = await _replace_anniversaries(connection, user_id, old, new, now)
    moved_types += [BIRTHDAY] if moved else []
    if not moved_types:
        # The new address may be on the list of suppressed ones, or that of somebody who was greeted this year.
        renamed = suppressed or old.email != new.email
        return Replanned(cancelled=await _cancel_stale(connection, user_id, now) if renamed else 0)
    messages = [
        message
        for message in planned_messages(new, now, planning.horizon, planning.rules)
        if message.message_type in moved_types
    ]
    # A planner may just have inserted a message for the old birthday. Then our insert waits for the planner's commit,
    # and finds the year taken. The second cancellation sees that message, and frees the year.
    over = last_dates_over(new, now, planning.rules)
    await _keep_pending(connection, user_id, now, {name: on for name, on in over.items() if name in moved_types})
    cancelled = await _cancel_stale(connection, user_id, now)
    planned = await _insert_planned(connection, user_id, messages, now, traceparent)
    if planned < len(messages) and (stale := await _cancel_stale(connection, user_id, now)):
        cancelled += stale
        planned += await _insert_planned(connection, user_id, messages, now, traceparent)
    return Replanned(planned, cancelled)


async def delete_user(pool: asyncpg.Pool, user_id: UUID, now: datetime, by: Actor) -> int:
    """Remove a user, in a transaction of its own; see ``remove_user``."""
    async with borrow(pool) as connection, connection.transaction():
        return await remove_user(connection, user_id, now, by)


async def remove_user(connection: Connection, user_id: UUID, now: datetime, by: Actor) -> int:
    """Delete a user, record that, and cancel what is pending, in the caller's transaction.

    Returns:
        How many messages were cancelled.

    Raises:
        NotFoundError: if there is no such live user.
    """
    deleted = await connection.fetchval(
        "UPDATE users SET deleted_at = $2, updated_at = $2 WHERE id = $1 AND deleted_at IS NULL RETURNING id",
        user_id,
        now,
    )
    if deleted is None:
        raise unknown_user(user_id)
    await delete_anniversaries(connection, [user_id])
    await record_changes(connection, [by.change(DELETED, USER, user_id)], now)
    return await _cancel_stale(connection, user_id, now)


async def delete_anniversaries(connection: Connection, user_ids: Sequence[UUID]) -> None:
    """Note with the dates of those users who are deleted that they are."""
    # A statement of its own, so that it sees the dates of a change that the user's deletion has waited for.
    await connection.execute(
        """
        UPDATE anniversaries SET deleted_at = u.deleted_at FROM users u
        WHERE u.id = user_id AND user_id = ANY($1) AND u.deleted_at IS NOT NULL AND anniversaries.deleted_at IS NULL
        """,
        user_ids,
    )


async def keep_years(connection: Connection, cancelled: Sequence[asyncpg.Record]) -> None:
    """Note with the users the years of cancelled messages that may have arrived: there will be no other one that year.

    ``cancelled`` are rows with ``id`` and ``may_have_arrived``; the transaction holds their users. The years of deleted
    users are in ``past_greetings``.
    """
    if not any(row["may_have_arrived"] for row in cancelled):
        return
    await connection.execute(
        """
        WITH taken AS (
            SELECT user_id, message_type, max(occasion_year) AS year FROM message_logs
            WHERE id = ANY($1::uuid[]) AND may_have_arrived GROUP BY user_id, message_type
        ), birthdays AS (
            UPDATE users u SET greeted_year = taken.year FROM taken
            WHERE taken.message_type = 'birthday' AND u.id = taken.user_id
              AND u.greeted_year < taken.year AND u.deleted_at IS NULL
        )
        UPDATE anniversaries a SET greeted_year = taken.year FROM taken
        WHERE a.user_id = taken.user_id AND a.message_type = taken.message_type
          AND a.greeted_year < taken.year AND a.deleted_at IS NULL
        """,
        [row["id"] for row in cancelled],
    )


async def purge_deleted_users(pool: asyncpg.Pool, deleted_before: datetime, limit: int) -> int:
    """Remove up to ``limit`` users that were deleted before an instant, for good; return how many."""
    rows = await pool.fetch(
        """
        DELETE FROM users WHERE id IN (
            SELECT id FROM users WHERE deleted_at < $1 ORDER BY deleted_at LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING id
        """,
        deleted_before,
        limit,
    )
    return len(rows)


async def _replace_anniversaries(
    connection: Connection, user_id: UUID, old: Profile, new: Profile, now: datetime
) -> list[str]:
    """Store the yearly dates of ``new``, and return the types that have moved: all, if the zone has."""
    before, after = old.extras.anniversaries, new.extras.anniversaries
    types = [name for name in {**before, **after} if old.zone != new.zone or before.get(name) != after.get(name)]
    if types:
        await connection.execute(
            """
            INSERT INTO anniversaries (user_id, message_type, date, timezone, schedule_from)
            SELECT $1, moved.message_type, moved.date, $4, $5
            FROM unnest($2::text[], $3::date[]) AS moved (message_type, date)
            ON CONFLICT (user_id, message_type) DO UPDATE
            SET date = EXCLUDED.date, timezone = EXCLUDED.timezone,
                schedule_from = greatest(EXCLUDED.schedule_from, anniversaries.schedule_from + interval '1 us')
            """,
            user_id,
            types,
            [after.get(name) for name in types],
            new.zone,
            now,
        )
    return types


async def _keep_pending(connection: Connection, user_id: UUID, now: datetime, over: Mapping[str, date]) -> None:
    """Keep a message that may have arrived or is overdue, under its own key, although the birthday has moved.

    After one that may have arrived, a message for the new date could be a second greeting this year. An overdue one is
    kept if its date is the same as before, and has ended: ``over`` has such dates by type. Then no message replaces it.
    A message that is being sent is left to the next claim.
    """
    await connection.execute(
        """
        UPDATE message_logs m SET schedule_from = d.schedule_from
        FROM yearly_dates d
        WHERE m.user_id = $1 AND m.phase <> 'cancelled' AND d.user_id = $1 AND d.message_type = m.message_type
          AND m.status IN ('scheduled', 'queued', 'retrying')
          AND (m.may_have_arrived
               OR m.scheduled_at <= $2
                  AND (m.message_type, m.occasion_on) IN (SELECT * FROM unnest($3::text[], $4::date[])))
        """,
        user_id,
        now,
        list(over),
        list(over.values()),
    )


async def _cancel_stale(connection: Connection, user_id: UUID, now: datetime) -> int:
    """Cancel pending messages that are not current any more: all of them if the user is deleted or suppressed."""
    rows = await connection.fetch(
        """
        UPDATE message_logs m
        SET status = 'cancelled', updated_at = $2, next_attempt_at = NULL,
            error_detail = CASE WHEN u.suppressed AND u.deleted_at IS NULL THEN 'suppressed' ELSE m.error_detail END
        FROM users u
        WHERE m.user_id = $1 AND m.phase <> 'cancelled' AND m.status IN ('scheduled', 'queued', 'retrying')
          AND u.id = $1 AND NOT is_current(m, u)
        RETURNING m.id, m.may_have_arrived
        """,
        user_id,
        now,
    )
    await keep_years(connection, rows)
    return len(rows)


async def _insert_planned(
    connection: Connection, user_id: UUID, messages: list[PlannedMessage], now: datetime, traceparent: str | None
) -> int:
    rows = await connection.fetch(
        """
        INSERT INTO message_plans SELECT planned.*
        FROM unnest($4::text[], $5::smallint[], $6::date[], $7::timestamptz[], $8::timestamptz[])
            AS new (message_type, year, day, due_at, ends_at)
        CROSS JOIN LATERAL (
            SELECT u.schedule_from FROM users u
            WHERE u.id = $1 AND new.message_type = 'birthday' AND is_concerned(u, new.year, new.ends_at)
            UNION ALL
            SELECT a.schedule_from FROM anniversaries a JOIN planned_types USING (message_type)
            WHERE a.user_id = $1 AND a.message_type = new.message_type AND a.date IS NOT NULL
              AND is_concerned(a, new.year, new.ends_at)
        ) one
        CROSS JOIN LATERAL plan_message(
            $1, new.message_type, one.schedule_from, new.year, new.day, new.due_at, new.ends_at, $2, $3) planned
        ON CONFLICT DO NOTHING
        RETURNING id
        """,
        user_id,
        now,
        traceparent,
        *_columns(messages),
    )
    return len(rows)


def _columns(messages: list[PlannedMessage]) -> tuple[list[Any], ...]:
    return (
        [message.message_type for message in messages],
        [message.occasion.year for message in messages],
        [message.occasion.on for message in messages],
        [message.due_at for message in messages],
        [message.occasion.ends_at for message in messages],
    )


def _user(row: asyncpg.Record, now: datetime, rules: Rules) -> User:
    others = [YearlyDate(*other) for other in row["others"] or ()]
    profile = profile_of(row, {other.message_type: other.day for other in others})
    since, greeted_year, created_at = row["schedule_from"], row["greeted_year"], row["created_at"]
    pending_at, pending_on, taken_years = row["pending_at"], row["pending_on"], row["taken_years"]
    birthday = YearlyDate(
        BIRTHDAY, profile.date_of_birth, created_at, since, greeted_year, pending_at, pending_on, taken_years
    )
    upcoming: list[Upcoming] = []
    # Another program has written a zone that does not exist. Then the next instants are unknown.
    with suppress(InvalidInputError):
        upcoming = upcoming_occasions([birthday, *others], profile, now, rules)
    return User(row["id"], profile, upcoming, created_at, row["updated_at"])


def profile_of(row: asyncpg.Record, anniversaries: Mapping[str, date]) -> Profile:
    """Return the profile in a row of ``users``, with these dates by type."""
    extras = NO_EXTRAS
    external_id, locale, attributes = row["external_id"], row["locale"], row["attributes"]
    if external_id or locale or attributes or anniversaries or row["suppressed"]:
        extras = Extras(external_id, locale, orjson.loads(attributes or "{}"), anniversaries, row["suppressed"])
    return Profile(row["first_name"], row["last_name"], row["email"], row["date_of_birth"], row["timezone"], extras)


def attributes_text(profile: Profile) -> str | None:
    """Return the attributes as they are stored."""
    return orjson.dumps(profile.extras.attributes).decode() if profile.extras.attributes else None


def is_other(old: Profile, new: Profile) -> bool:
    """Say whether two profiles differ as they are stored. In Python alone, an attribute true equals 1."""
    return old != new or attributes_text(old) != attributes_text(new)


def unknown_user(user_id: UUID) -> NotFoundError:
    """Return the error for a user who does not exist."""
    return NotFoundError(f"there is no user {user_id}", "unknown_user")


def conflict(error: asyncpg.UniqueViolationError, profile: Profile) -> Exception:
    """Return the error for a value that another live user has, or ``error`` itself if it is about something else."""
    if error.constraint_name == "users_live_email":
        return email_taken(profile)
    if error.constraint_name == "users_live_external_id":
        taken = profile.extras.external_id or ""
        return ConflictError("another user has this externalId", "/externalId", "external_id_taken", taken)
    return error


async def find_user(connection: Connection, external_id: str) -> UUID | None:
    """Return the live user who has an external id; None if there is none."""
    found: UUID | None = await connection.fetchval(
        "SELECT id FROM users WHERE external_id = $1 AND deleted_at IS NULL", external_id
    )
    return found


def email_taken(profile: Profile) -> ConflictError:
    """Return the error for an e-mail address that another live user has."""
    taken = profile.email
    return ConflictError("another user has this e-mail address", "/email", "email_taken", taken)


async def name_existing(connection: Connection, error: ConflictError) -> None:
    """Add to a conflict the id of the user who has the address or external id, if there still is one."""
    if error.pointer == "/email":
        error.existing_id = await connection.fetchval(
            "SELECT id FROM users WHERE deleted_at IS NULL AND lower(email) = lower($1)", error.value
        )
    else:
        error.existing_id = await find_user(connection, error.value)
