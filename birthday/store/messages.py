"""The way of a message from plan to outcome: every move between two states is one guarded UPDATE.

In order: plan (planner), dispatch (dispatcher), claim and settle (worker). ``upkeep.py`` handles what was left in
between. ``now`` is business time. Only ``lease_until`` is by the database's clock, because workers on several hosts
compare it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from birthday.core.message import ErrorType, Status
from birthday.core.occasion import ZoneOccasion
from birthday.store.users import Connection
from birthday.telemetry.tracing import TraceContext

PLANNED = "planned"
SWEPT = "swept"
PLAN_SECONDS = 600
"""How long one planning statement may take: after a long downtime it covers millions of users."""


async def lock_watermark(connection: Connection, name: str) -> datetime | None:
    """Return how far a job has come (None at first), and lock its watermark until the transaction ends."""
    await connection.execute(
        "INSERT INTO watermarks (name, reached_at) VALUES ($1, '-infinity') ON CONFLICT (name) DO NOTHING", name
    )
    reached_at: datetime | None = await connection.fetchval(
        "SELECT nullif(reached_at, '-infinity') FROM watermarks WHERE name = $1 FOR UPDATE", name
    )
    return reached_at


async def read_watermark(connection: Connection, name: str) -> datetime | None:
    """Return how far a job has come; None if it was never done."""
    reached_at: datetime | None = await connection.fetchval(
        "SELECT nullif(reached_at, '-infinity') FROM watermarks WHERE name = $1", name
    )
    return reached_at


async def set_watermark(connection: Connection, name: str, reached_at: datetime) -> None:
    """Store how far a job has come; its row must be held by ``lock_watermark``."""
    await connection.execute("UPDATE watermarks SET reached_at = $2 WHERE name = $1", name, reached_at)


async def is_planned_otherwise(pool: asyncpg.Pool, rules: str) -> bool:
    """Say whether there may be scheduled messages that were planned by other rules than these."""
    otherwise: bool = await pool.fetchval(
        """
        SELECT NOT EXISTS (SELECT FROM watermarks WHERE name = $1 AND rules = $2)
           AND EXISTS (SELECT FROM message_logs WHERE status = 'scheduled')
        """,
        PLANNED,
        rules,
    )
    return otherwise


async def read_rules(pool: asyncpg.Pool) -> str | None:
    """Return the rules by which everything is planned; None if none are stored."""
    rules: str | None = await pool.fetchval("SELECT rules FROM watermarks WHERE name = $1", PLANNED)
    return rules


async def last_scheduled(connection: Connection) -> datetime | None:
    """Return when the last ``scheduled`` message falls due; None if there is none."""
    last: datetime | None = await connection.fetchval(
        "SELECT max(scheduled_at) FROM message_logs WHERE status = 'scheduled'"
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


async def plan(
    connection: Connection,
    occasions: Sequence[ZoneOccasion],
    now: datetime,
    traceparent: str | None = None,
    only: Sequence[UUID] | None = None,
) -> int:
    """Materialise a message for each user of ``occasions`` who has none for that year; return how many.

    Safe to run concurrently and repeatedly, because the unique index on user, type and year decides. A message that was
    cancelled by hand stays cancelled, because its id exists. If a user changes meanwhile, at worst there is a stale
    message, which the claim recognises by its ``schedule_from``. ``traceparent`` is the context of the tick, if that is
    traced. If ``only`` is given, only these users count.
    """
    status = await connection.execute(
        """
        INSERT INTO message_plans SELECT planned.*
        FROM unnest($2::text[], $3::smallint[], $4::text[], $5::smallint[], $6::date[], $7::timestamptz[],
                    $8::timestamptz[]) AS spec (zone, month_day, message_type, year, day, due_at, ends_at)
        JOIN users u ON u.timezone = spec.zone AND u.birth_month_day = spec.month_day AND u.deleted_at IS NULL
        CROSS JOIN LATERAL plan_message(
            u.id, spec.message_type, u.schedule_from, spec.year, spec.day, greatest(spec.due_at, u.schedule_from),
            spec.ends_at, $1, $9) planned
        WHERE is_concerned(u, spec.year, spec.ends_at) AND ($10::uuid[] IS NULL OR u.id = ANY($10))
        ON CONFLICT DO NOTHING
        """,
        now,
        *_columns(occasions),
        traceparent,
        only,
        timeout=PLAN_SECONDS,
    )
    return int(status.rpartition(" ")[2])


async def users_concerned(connection: Connection, occasion: ZoneOccasion) -> list[UUID]:
    """Return the live users of an occasion, with or without a message."""
    rows = await connection.fetch(
        """
        SELECT id FROM users
        WHERE timezone = $1 AND birth_month_day = ANY($2::smallint[]) AND deleted_at IS NULL
        """,
        occasion.zone,
        list(occasion.month_days),
    )
    return [row["id"] for row in rows]


async def move(connection: Connection, occasions: Sequence[ZoneOccasion], now: datetime) -> int:
    """Move messages that were planned by other rules to the instants of ``occasions``; return how many.

    Only messages that are not due yet move, and none moves to a day that is over. If the new instant has passed, the
    message is due now. If a dispatcher or a change of the user holds a row, the statement waits for it, and then checks
    the row's ``status`` again.
    """
    status = await connection.execute(
        """
        UPDATE message_logs m
        SET scheduled_at = greatest(spec.due_at, u.schedule_from, $1), ends_at = spec.ends_at, occasion_on = spec.day,
            updated_at = $1
        FROM unnest($2::text[], $3::smallint[], $4::text[], $5::smallint[], $6::date[], $7::timestamptz[],
                    $8::timestamptz[]) AS spec (zone, month_day, message_type, year, day, due_at, ends_at)
        JOIN users u ON u.timezone = spec.zone AND u.birth_month_day = spec.month_day AND u.deleted_at IS NULL
        WHERE m.user_id = u.id AND m.message_type = spec.message_type AND m.occasion_year = spec.year
          AND m.status = 'scheduled' AND m.scheduled_at > $1 AND m.schedule_from = u.schedule_from
          AND m.scheduled_at <> greatest(spec.due_at, u.schedule_from) AND spec.ends_at > $1
        """,
        now,
        *_columns(occasions),
        timeout=PLAN_SECONDS,
    )
    return int(status.rpartition(" ")[2])


def _columns(occasions: Sequence[ZoneOccasion]) -> tuple[Sequence[object], ...]:
    """Return zones, days of birth, types, years, dates, instants and ends as columns, a row for each day of birth."""
    rows = [(spec.zone, month_day, spec.occasion) for spec in occasions for month_day in spec.month_days]
    return (
        [zone for zone, _, _ in rows],
        [month_day for _, month_day, _ in rows],
        [occasion.message_type for _, _, occasion in rows],
        [occasion.year for _, _, occasion in rows],
        [occasion.on for _, _, occasion in rows],
        [occasion.due_at for _, _, occasion in rows],
        [occasion.ends_at for _, _, occasion in rows],
    )


@dataclass(frozen=True, slots=True)
class Due:
    """The last deadline of the messages that are due, and when the next message falls due. Either may be None."""

    last_deadline: datetime | None
    next_due_at: datetime | None


async def look_ahead(connection: Connection | asyncpg.Pool, now: datetime, not_before: datetime) -> Due:
    """Read what fell due in ``(not_before, now]``, and when the next message falls due."""
    row = await connection.fetchrow(
        """
        SELECT (SELECT max(ends_at) FROM message_logs
                WHERE status = 'scheduled' AND scheduled_at <= $1 AND scheduled_at > $2) AS last_deadline,
               (SELECT min(scheduled_at) FROM message_logs
                WHERE status = 'scheduled' AND scheduled_at > $1) AS next_due_at
        """,
        now,
        not_before,
    )
    last_deadline, next_due_at = row or (None, None)
    return Due(last_deadline, next_due_at)


async def lock_due(
    connection: Connection, now: datetime, not_before: datetime, last_deadline: datetime, limit: int
) -> list[UUID]:
    """Lock and return up to ``limit`` due messages, those whose local birthday ends soonest first.

    Other dispatchers skip the locked rows. A worker that has already received one of them waits for the commit. The
    index scan is in order of deadline; ``last_deadline`` keeps it from reading all future messages.
    """
    rows = await connection.fetch(
        """
        SELECT id FROM message_logs
        WHERE status = 'scheduled' AND scheduled_at <= $1 AND scheduled_at > $2 AND ends_at <= $3
        ORDER BY ends_at LIMIT $4
        FOR UPDATE SKIP LOCKED
        """,
        now,
        not_before,
        last_deadline,
        limit,
    )
    return [row["id"] for row in rows]


async def read_trace_contexts(connection: Connection, ids: Sequence[UUID]) -> list[TraceContext]:
    """Return the trace context in which each of these messages was made."""
    rows = await connection.fetch("SELECT id, traceparent FROM message_logs WHERE id = ANY($1::uuid[])", ids)
    return [TraceContext(*row) for row in rows]


async def mark_queued(connection: Connection | asyncpg.Pool, ids: Sequence[UUID], now: datetime) -> None:
    """Record that the broker has confirmed these messages. The caller's transaction may hold them, but need not."""
    await connection.execute(
        """
        UPDATE message_logs SET status = 'queued', queued_at = $2, updated_at = $2
        WHERE id = ANY($1::uuid[]) AND status = 'scheduled'
        """,
        ids,
        now,
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that this worker has claimed, until its lease runs out by the database's clock.

    ``lease_until`` is the fencing token: no two claims of a message have the same. ``traceparent`` is the context in
    which the message was made, if that was traced. ``failures`` counts its failures, and ``failed_at`` is the last one.
    ``blamed`` says that other messages were delivered between two of them.
    """

    id: UUID
    attempt: int
    lease_until: datetime
    scheduled_at: datetime
    first_name: str
    last_name: str
    email: str
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
) -> list[Claim]:
    """Claim the messages among ``ids`` that may be sent now, with the current data of their users.

    A message can be claimed if it is queued, is due for a retry, or was left by a dead worker whose lease has run out.
    It must have fallen due, or been requeued, after ``late``. A failed message can be claimed if it is in ``by_hand``,
    because an operator has put it into the queue again. In all these cases the user must be live, with the birthday and
    zone for which the message was planned. There is one exception: a message that may have arrived, such as that of a
    dead worker, is finished even if birthday or zone has moved, and gets the new schedule version.

    ``scheduled`` counts as queued, because a dispatcher that dies between confirm and commit leaves that status. The
    rows are locked in order of id first, so that the claim waits for a dispatcher that is about to commit, and two
    workers with the same messages cannot deadlock.
    """
    rows = await pool.fetch(
        """
        UPDATE message_logs m
        SET status = 'sending', lease_until = clock_timestamp() + $5::interval, next_attempt_at = NULL, updated_at = $3,
            may_have_arrived = m.may_have_arrived OR m.status = 'sending', schedule_from = u.schedule_from,
            attempts = CASE WHEN m.status = 'failed' THEN 1 ELSE m.attempts + 1 END,
            failures = CASE WHEN m.status = 'failed' THEN 0 ELSE m.failures END,
            failed_at = CASE WHEN m.status = 'failed' THEN NULL ELSE m.failed_at END,
            blamed = m.blamed AND m.status <> 'failed',
            requeued_at = CASE WHEN m.status = 'failed' THEN $3 ELSE m.requeued_at END
        FROM (SELECT id FROM message_logs WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE) held, users u
        WHERE m.id = held.id AND u.id = m.user_id AND is_current(m, u)
          AND (m.status = 'failed' AND m.id = ANY($2::uuid[])
               OR greatest(m.scheduled_at, m.requeued_at) > $4
                  AND (m.status IN ('scheduled', 'queued') AND m.scheduled_at <= $3
                       OR m.status = 'retrying' AND m.next_attempt_at <= $3
                       OR m.status = 'sending' AND m.lease_until < clock_timestamp()))
        RETURNING m.id, m.attempts, m.lease_until, m.scheduled_at, u.first_name, u.last_name, u.email,
                  m.traceparent, m.failures, m.failed_at, m.blamed
        """,
        ids,
        by_hand,
        now,
        late,
        lease,
    )
    return [Claim(*row) for row in rows]


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
        SELECT m.id, m.status, coalesce(m.next_attempt_at, m.scheduled_at) AS ready_at,
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
            Status(row["status"]),
            row["ready_at"],
            row["due_since"],
            row["lease"] or timedelta(),
            row["current"],
        )
        for row in rows
    ]


async def cancel(pool: asyncpg.Pool, ids: Sequence[UUID], now: datetime) -> list[UUID]:
    """Cancel those of ``ids`` that are pending and whose user is deleted or has moved; return which.

    A message that may have arrived is cancelled only if the user is deleted, because its replacement could be a second
    greeting.
    """
    async with pool.acquire() as connection, connection.transaction():
        await _hold(connection, ids)
        rows = await connection.fetch(
            """
            UPDATE message_logs m SET status = 'cancelled', updated_at = $2, next_attempt_at = NULL
            WHERE m.id = ANY($1::uuid[]) AND m.status IN ('scheduled', 'queued', 'retrying')
              AND NOT EXISTS (SELECT FROM users u WHERE u.id = m.user_id AND is_current(m, u))
            RETURNING m.id
            """,
            ids,
            now,
        )
    return [row["id"] for row in rows]


async def give_up(pool: asyncpg.Pool, ids: Sequence[UUID], now: datetime, late: datetime) -> list[UUID]:
    """Fail those of ``ids`` that a dead worker was sending and that may not be sent any more; return which.

    A message may not be sent any more if its user is deleted, or if it was due or requeued at ``late`` or before. It
    may have arrived, so it is failed and its year stays taken: ``cancelled`` would free the year for a second greeting.
    """
    async with pool.acquire() as connection, connection.transaction():
        await _hold(connection, ids)
        rows = await connection.fetch(
            """
            UPDATE message_logs m
            SET status = 'failed', updated_at = $2, lease_until = NULL, may_have_arrived = true,
                error_type = 'permanent_failure',
                error_detail = 'a worker died while sending it: it may have arrived, and may not be sent again'
            WHERE m.id = ANY($1::uuid[]) AND m.status = 'sending' AND m.lease_until < clock_timestamp()
              AND (greatest(m.scheduled_at, m.requeued_at) <= $3
                   OR NOT EXISTS (SELECT FROM users u WHERE u.id = m.user_id AND is_current(m, u)))
            RETURNING m.id
            """,
            ids,
            now,
            late,
        )
    return [row["id"] for row in rows]


async def _hold(connection: Connection, ids: Sequence[UUID]) -> None:
    """Lock messages, in order of id, for the next statement of the transaction.

    If that statement itself had to wait for a message, it would read the message as it is then, but the user as it
    was before.
    """
    await connection.execute("SELECT FROM message_logs WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE", ids)


async def request_sweep(pool: asyncpg.Pool) -> None:
    """Request a sweep, because a message may be missing: the planner's next tick looks over its whole window.

    This does not wait for a planner, because a planner locks this row only for the length of a statement.
    """
    await pool.execute("UPDATE watermarks SET reached_at = '-infinity' WHERE name = $1", SWEPT)


async def begin_sweep(pool: asyncpg.Pool, now: datetime, every: timedelta) -> datetime | None:
    """Begin a sweep if the last one is ``every`` ago or longer, or if one was requested.

    Returns:
        A token for ``end_sweep``; None if no sweep is due. If the sweep does not end, another one is due.
    """
    begun = now - every
    due: datetime | None = await pool.fetchval(
        """
        INSERT INTO watermarks AS swept (name, reached_at) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET reached_at = $2
        WHERE swept.reached_at NOT BETWEEN $2 AND $3 OR swept.reached_at = $2
        RETURNING reached_at
        """,
        SWEPT,
        begun,
        now + every,
    )
    return due


async def end_sweep(pool: asyncpg.Pool, begun: datetime, now: datetime) -> None:
    """Record that the sweep with the token ``begun`` is done, unless another one has been requested meanwhile."""
    await pool.execute("UPDATE watermarks SET reached_at = $3 WHERE name = $1 AND reached_at = $2", SWEPT, begun, now)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed."""

    error_type: ErrorType
    detail: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of one claim: delivered, failed, or retrying at ``next_attempt_at``.

    ``lease_until`` is that of the claim. ``sent_at`` is when the message was sent to the message service; None says
    that it was given back unsent. ``counted`` says whether this attempt counts toward MAX_ATTEMPTS.
    ``may_have_arrived`` says that the message may have been accepted. ``failed`` says that the message or the service
    was at fault, and ``blamed`` that it was the message.
    """

    id: UUID
    lease_until: datetime
    status: Status
    settled_at: datetime
    sent_at: datetime | None
    next_attempt_at: datetime | None
    counted: bool
    failure: Failure | None = None
    may_have_arrived: bool = False
    failed: bool = False
    blamed: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """A settlement that was stored. ``first_sent`` says that no earlier attempt had reached the message service."""

    id: UUID
    lease_until: datetime
    first_sent: bool


async def settle(pool: asyncpg.Pool, settlements: Sequence[Settlement]) -> list[Settled]:
    """Store outcomes in one statement. If one is missing from the result, another worker had taken the message over.

    Safe to repeat when the answer was lost. An outcome is stored only under the lease of its claim. An outcome that is
    stored already is recognised by ``settled_at``.
    """
    rows = await pool.fetch(
        """
        UPDATE message_logs m
        SET status = done.status, updated_at = done.settled_at, lease_until = NULL,
            attempts = m.attempts - CASE WHEN done.counted OR m.status <> 'sending' THEN 0 ELSE 1 END,
            sent_at = coalesce(m.sent_at, done.sent_at),
            delivered_at = CASE WHEN done.status = 'delivered' THEN done.settled_at END,
            next_attempt_at = done.next_attempt_at,
            may_have_arrived = m.may_have_arrived OR done.may_have_arrived,
            failures = m.failures + CASE WHEN done.failed AND m.status = 'sending' THEN 1 ELSE 0 END,
            failed_at = CASE WHEN done.failed THEN done.settled_at ELSE m.failed_at END,
            blamed = m.blamed OR done.blamed,
            error_type = CASE WHEN done.sent_at IS NULL AND done.status <> 'failed'
                              THEN m.error_type ELSE done.error_type END,
            error_detail = CASE WHEN done.sent_at IS NULL AND done.status <> 'failed'
                                THEN m.error_detail ELSE done.error_detail END
        FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                    $7::boolean[], $8::text[], $9::text[], $10::boolean[], $11::boolean[], $12::boolean[])
            AS done (id, lease_until, status, settled_at, sent_at, next_attempt_at, counted, error_type, error_detail,
                     may_have_arrived, failed, blamed)
        WHERE m.id = done.id
          AND (m.status = 'sending' AND m.lease_until = done.lease_until
               OR m.status = done.status AND m.lease_until IS NULL AND m.updated_at = done.settled_at)
        RETURNING m.id, done.lease_until,
                  m.sent_at IS NOT DISTINCT FROM done.sent_at AND done.sent_at IS NOT NULL AS first_sent
        """,
        [one.id for one in settlements],
        [one.lease_until for one in settlements],
        [one.status for one in settlements],
        [one.settled_at for one in settlements],
        [one.sent_at for one in settlements],
        [one.next_attempt_at for one in settlements],
        [one.counted for one in settlements],
        [one.failure.error_type if one.failure else None for one in settlements],
        [one.failure.detail if one.failure else None for one in settlements],
        [one.may_have_arrived for one in settlements],
        [one.failed for one in settlements],
        [one.blamed for one in settlements],
    )
    return [Settled(*row) for row in rows]
