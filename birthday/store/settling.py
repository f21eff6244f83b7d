"""Step 3c, settle: outcomes of many sends, stored by one guarded UPDATE."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from birthday.core.message import ErrorType, Status

_Value = TypeVar("_Value")


class Failure(NamedTuple):
    """Why an attempt failed."""

    error_type: ErrorType
    detail: str


class Settlement(NamedTuple):
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


class Settled(NamedTuple):
    """A settlement that was stored. ``first_sent`` says that no earlier attempt had reached the message service."""

    id: UUID
    lease_until: datetime
    first_sent: bool


async def settle(pool: asyncpg.Pool, settlements: Sequence[Settlement]) -> list[Settled]:
    """Store outcomes in one statement. If one is missing from the result, another worker had taken the message over.

    The statement itself places final outcomes in the feed and ends the flight of their messages, because the trigger
    that otherwise does it costs more. A delivery changes nothing that an index of ``message_logs`` has.
    ``given`` keeps PostgreSQL's planner from counting the outcomes: in a small table, it would rather read all of it.

    Safe to repeat when the answer was lost. An outcome is stored only under the lease of its claim. An outcome that is
    stored already is recognised by ``settled_at``.
    """
    rows = await pool.fetch(
        """
        WITH stored AS (
        UPDATE message_logs m
        SET status = done.status, phase = message_phase(done.status), updated_at = done.settled_at, lease_until = NULL,
            feed_position = CASE WHEN m.status = done.status THEN m.feed_position
                                 WHEN done.status IN ('delivered', 'failed')
                                 THEN feed_base() + pg_current_xact_id()::text::bigint END,
            attempts = m.attempts - CASE WHEN done.uncounted AND m.status = 'sending' THEN 1 ELSE 0 END,
            sent_at = coalesce(m.sent_at, done.sent_at),
            delivered_at = CASE WHEN done.status = 'delivered' THEN done.settled_at END,
            next_attempt_at = done.next_attempt_at,
            may_have_arrived = m.may_have_arrived OR coalesce(done.may_have_arrived, false),
            failures = m.failures + CASE WHEN done.failed AND m.status = 'sending' THEN 1 ELSE 0 END,
            failed_at = CASE WHEN done.failed THEN done.settled_at ELSE m.failed_at END,
            blamed = m.blamed OR coalesce(done.blamed, false),
            error_type = CASE WHEN done.sent_at IS NULL AND done.status <> 'failed'
                              THEN m.error_type ELSE done.error_type END,
            error_detail = CASE WHEN done.sent_at IS NULL AND done.status <> 'failed'
                                THEN m.error_detail ELSE done.error_detail END
        FROM (SELECT $1::uuid[], $2::timestamptz[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                     $7::boolean[], $8::text[], $9::text[], $10::boolean[], $11::boolean[], $12::boolean[] OFFSET 0)
            AS given (a, b, c, d, e, f, g, h, i, j, k, l),
             unnest(a, b, c, d, e, f, g, h, i, j, k, l) WITH ORDINALITY
            AS done (id, lease_until, status, settled_at, sent_at, next_attempt_at, uncounted, error_type, error_detail,
                     may_have_arrived, failed, blamed, place)
        WHERE m.id = done.id
          AND (m.status = 'sending' AND m.lease_until = done.lease_until
               OR m.status = done.status AND m.lease_until IS NULL AND m.updated_at = done.settled_at)
        RETURNING m.id, m.updated_at, m.feed_position, done.place,
                  m.sent_at IS NOT DISTINCT FROM done.sent_at AND done.sent_at IS NOT NULL AS first_sent
        ), noted AS (
            SELECT note_outcomes(array_agg(id), max(updated_at)) FROM stored
            WHERE feed_position = feed_base() + pg_current_xact_id()::text::bigint
        )
        SELECT stored.place, stored.first_sent FROM stored, noted
        """,
        [one.id for one in settlements],
        [one.lease_until for one in settlements],
        [one.status for one in settlements],
        [one.settled_at for one in settlements],
        [one.sent_at for one in settlements],
        _unless_empty([one.next_attempt_at for one in settlements]),
        _unless_empty([not one.counted or None for one in settlements]),
        _unless_empty([one.failure and one.failure.error_type for one in settlements]),
        _unless_empty([one.failure and one.failure.detail for one in settlements]),
        _unless_empty([one.may_have_arrived or None for one in settlements]),
        _unless_empty([one.failed or None for one in settlements]),
        _unless_empty([one.blamed or None for one in settlements]),
    )
    return [
        Settled(settlements[place - 1].id, settlements[place - 1].lease_until, first_sent) for place, first_sent in rows
    ]


def _unless_empty(column: list[_Value | None]) -> list[_Value | None]:
    """Return a column, or an empty one if all its values are NULL: ``unnest`` fills it up, and that costs less."""
    return column if any(value is not None for value in column) else []
