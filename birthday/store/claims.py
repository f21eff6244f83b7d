"""Step 3a, claim: a guarded UPDATE with a lease. What cannot be claimed is cancelled, given up or waited for.

``now`` is business time. Only ``lease_until`` is by the database's clock, because workers on several hosts compare it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from birthday.core.message import OUTCOME_UNKNOWN, Status
from birthday.core.template import TemplateKey
from birthday.store.connection import Connection
from birthday.store.users import keep_years

_DEAD: Final = "a worker died while sending it: it may have arrived, and may not be sent again"


class Claim(NamedTuple):
    """A message that this worker has claimed, until its lease runs out by the database's clock.

    ``lease_until`` is the fencing token: no two claims of a message have the same. ``traceparent`` is the context in
    which the message was made, if that was traced. ``failures`` counts its failures, and ``failed_at`` is the last one.
    ``blamed`` says that other messages were delivered between two of them. ``template`` is None if there is none.
    ``day`` is the date of birth, or the first day of an anniversary.
    """

    id: UUID
    message_type: str
    template: TemplateKey | None
    user_id: UUID
    attempt: int
    lease_until: datetime
    scheduled_at: datetime
    first_name: str
    last_name: str
    email: str
    locale: str | None
    attributes: str | None
    year: int
    occasion_on: date
    day: date | None
    traceparent: str | None = None
    failures: int = 0
    failed_at: datetime | None = None
    blamed: bool = False


async def claim(
    pool: asyncpg.Pool,
    ids: Sequence[UUID],
    by_hand: Sequence[UUID],
    now: datetime,
    late: datetime,
    lease: timedelta,
    paused: Sequence[str] = (),
    *,
    repeat_unknown: bool = True,
) -> list[Claim]:
    """Claim the messages among ``ids`` that may be sent now, with the current data of their users.

    Messages of the types that are ``paused`` are left alone.

    A message can be claimed if it is queued, is due for a retry, or was left by a dead worker whose lease has run out.
    It must have fallen due, or been requeued, after ``late``. A failed message can be claimed if it is in ``by_hand``,
    because an operator has put it into the queue again. In all these cases the user must be live, not suppressed, and
    have the date and zone for which the message was planned. There is one exception: a message that may have arrived,
    such as that of a dead worker, is finished even if date or zone has moved, and gets the new schedule version.
    Without ``repeat_unknown``, what a dead worker was sending is not claimed.

    The first attempt fixes the template: what is active then is said on every attempt. A message that was never sent,
    or has been requeued since, gets what is active now.

    ``scheduled`` counts as queued, because a dispatcher that dies between confirm and commit leaves that status. The
    rows are locked in order of id first, so that the claim waits for a dispatcher that is about to commit, and two
    workers with the same messages cannot deadlock. PostgreSQL's planner does not see how many they are, because in a
    small table it would rather read all of it.
    """
    rows = await pool.fetch(
        """
        UPDATE message_logs m
        SET status = 'sending', lease_until = clock_timestamp() + $5::interval,
            next_attempt_at = NULL, updated_at = $3, may_have_arrived = m.may_have_arrived OR m.status = 'sending',
            schedule_from = CASE WHEN m.message_type = 'birthday' THEN u.schedule_from ELSE (
                SELECT a.schedule_from FROM anniversaries a
                WHERE a.user_id = m.user_id AND a.message_type = m.message_type) END,
            attempts = CASE WHEN m.status = 'failed' THEN 1 ELSE m.attempts + 1 END,
            failures = CASE WHEN m.status = 'failed' THEN 0 ELSE m.failures END,
            failed_at = CASE WHEN m.status = 'failed' THEN NULL ELSE m.failed_at END,
            blamed = m.blamed AND m.status <> 'failed',
            requeued_at = CASE WHEN m.status = 'failed' THEN $3 ELSE m.requeued_at END,
            (template, locale, version) = (
                SELECT m.template, m.locale, m.version WHERE keeps_template(m)
                UNION ALL
                SELECT chosen.template, chosen.locale, chosen.version
                FROM choose_template(m.message_type, u.locale) chosen WHERE NOT keeps_template(m))
        FROM (SELECT id FROM message_logs
              WHERE id = ANY((SELECT $1::uuid[])::uuid[]) ORDER BY id FOR UPDATE) held, users u
        WHERE m.id = held.id AND u.id = m.user_id AND is_current(m, u)
          AND m.message_type <> ALL($7::text[])
          AND (m.status = 'failed' AND m.id = ANY($2::uuid[])
               OR greatest(m.scheduled_at, m.requeued_at) > $4
                  AND (m.status IN ('scheduled', 'queued') AND m.scheduled_at <= $3
                       OR m.status = 'retrying' AND m.next_attempt_at <= $3
                       OR m.status = 'sending' AND m.lease_until < clock_timestamp() AND $6::boolean))
        RETURNING m.id, m.message_type, m.locale, m.version, m.user_id, m.attempts, m.lease_until, m.scheduled_at,
                  u.first_name, u.last_name, u.email, u.locale, u.attributes, m.occasion_year, m.occasion_on,
                  CASE WHEN m.message_type = 'birthday' THEN u.date_of_birth ELSE (
                      SELECT a.date FROM anniversaries a
                      WHERE a.user_id = m.user_id AND a.message_type = m.message_type) END,
                  m.traceparent, m.failures, m.failed_at, m.blamed
        """,
        ids,
        by_hand,
        now,
        late,
        lease,
        repeat_unknown,
        paused,
    )
    return [
        Claim._make((*row[:2], None if row["version"] is None else TemplateKey(*row[1:4]), *row[4:])) for row in rows
    ]


async def read_last_failures(pool: asyncpg.Pool, ids: Sequence[UUID]) -> dict[UUID, tuple[bool, datetime]]:
    """Return ``(blamed, failed_at)`` of those among ``ids`` that have failed before."""
    rows = await pool.fetch(
        "SELECT id, blamed, failed_at FROM message_logs WHERE id = ANY($1::uuid[]) AND failed_at IS NOT NULL", ids
    )
    return {row["id"]: (row["blamed"], row["failed_at"]) for row in rows}


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """Why a message could not be claimed. ``ready_at`` is when it can be; ``lease`` is what another claim has left."""

    id: UUID
    message_type: str
    status: Status
    ready_at: datetime
    due_since: datetime
    lease: timedelta
    current: bool


async def read_unclaimed(pool: asyncpg.Pool, ids: Sequence[UUID]) -> list[Unclaimed]:
    """Return the state of messages that ``claim`` did not take. Ids that do not exist are left out.

    The statement waits for a dispatcher that is about to commit. Otherwise a message that it has just published would
    look unpublished, if this host's clock is a little behind, so that the message is not due here yet.

    ``current`` is the result of the SQL function ``is_current`` for message and user.
    """
    rows = await pool.fetch(
        """
        SELECT m.id, m.message_type, m.status, coalesce(m.next_attempt_at, m.scheduled_at) AS ready_at,
               greatest(m.scheduled_at, m.requeued_at) AS due_since,
               greatest(m.lease_until - clock_timestamp(), interval '0') AS lease, u.id IS NOT NULL AS current
        FROM message_logs m
        LEFT JOIN users u ON u.id = m.user_id AND is_current(m, u)
        WHERE m.id = ANY($1::uuid[])
        ORDER BY m.id FOR SHARE OF m
        """,
        ids,
    )
    return [
        Unclaimed(
            row["id"],
            row["message_type"],
            Status(row["status"]),
            row["ready_at"],
            row["due_since"],
            row["lease"] or timedelta(),
            row["current"],
        )
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A message that was cancelled. ``suppressed`` says that its user has opted out."""

    id: UUID
    suppressed: bool


async def cancel(pool: asyncpg.Pool, ids: Sequence[UUID], now: datetime) -> list[Cancelled]:
    """Cancel those of ``ids`` that are pending and whose user is deleted, suppressed or has moved; return which.

    A message that may have arrived is cancelled only if the user is deleted or suppressed, because its replacement
    could be a second greeting. Then its year stays taken.
    """
    async with pool.acquire() as connection, connection.transaction():
        # Users before messages, as everywhere else, so that nobody deadlocks with those whose year is kept.
        await connection.execute(
            """
            SELECT FROM users
            WHERE id IN (SELECT user_id FROM message_logs WHERE id = ANY($1::uuid[]) AND may_have_arrived)
            ORDER BY id FOR NO KEY UPDATE
            """,
            ids,
        )
        await _hold(connection, ids)
        rows = await connection.fetch(
            """
            UPDATE message_logs m
            SET status = 'cancelled', updated_at = $2, next_attempt_at = NULL,
                error_detail = coalesce((SELECT 'suppressed' FROM users u WHERE u.id = m.user_id AND u.suppressed
                                         AND u.deleted_at IS NULL), m.error_detail)
            WHERE m.id = ANY($1::uuid[]) AND m.status IN ('scheduled', 'queued', 'retrying')
              AND NOT EXISTS (SELECT FROM users u WHERE u.id = m.user_id AND is_current(m, u))
            RETURNING m.id, m.error_detail IS NOT DISTINCT FROM 'suppressed' AS suppressed, m.may_have_arrived
            """,
            ids,
            now,
        )
        await keep_years(connection, rows)
    return [Cancelled(row["id"], row["suppressed"]) for row in rows]


async def give_up(
    pool: asyncpg.Pool, ids: Sequence[UUID], now: datetime, late: datetime, *, repeat_unknown: bool = True
) -> list[UUID]:
    """Fail those of ``ids`` that a dead worker was sending and that may not be sent any more; return which.

    A message may not be sent any more if its user is deleted or suppressed, or if it was due or requeued at ``late`` or
    before; without ``repeat_unknown``, in any case. It may have arrived, so it is failed and its year stays taken:
    ``cancelled`` would free the year for a second greeting.
    """
    async with pool.acquire() as connection, connection.transaction():
        await _hold(connection, ids)
        rows = await connection.fetch(
            """
            UPDATE message_logs m
            SET status = 'failed', updated_at = $2, lease_until = NULL, may_have_arrived = true,
                error_type = 'permanent_failure', error_detail = $5
            WHERE m.id = ANY($1::uuid[]) AND m.status = 'sending' AND m.lease_until < clock_timestamp()
              AND (NOT $4::boolean OR greatest(m.scheduled_at, m.requeued_at) <= $3
                   OR NOT EXISTS (SELECT FROM users u WHERE u.id = m.user_id AND is_current(m, u)))
            RETURNING m.id
            """,
            ids,
            now,
            late,
            repeat_unknown,
            _DEAD if repeat_unknown else f"{OUTCOME_UNKNOWN}: a worker died while sending it",
        )
    return [row["id"] for row in rows]


async def _hold(connection: Connection, ids: Sequence[UUID]) -> None:
    """Lock messages, in order of id, for the next statement of the transaction.

    If that statement itself had to wait for a message, it would read the message as it is then, but the user as it
    was before.
    """
    await connection.execute("SELECT FROM message_logs WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE", ids)
