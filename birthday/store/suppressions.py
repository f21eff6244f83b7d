"""The list of suppressed addresses, and what follows for users and messages in the same transaction.

The list has hashes only, and outlives the users. Triggers of the schema keep ``users.suppressed`` equal to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from birthday.core.unsubscribe import Links
from birthday.store.changes import SUPPRESSION, Actor, record_changes
from birthday.store.connection import Connection, rows_changed
from birthday.store.users import keep_years, unknown_user


@dataclass(frozen=True, slots=True)
class Suppression:
    """An entry of the list. ``created_by`` is an API key, an operator, ``link`` or ``user``."""

    address_hash: bytes
    reason: str
    created_at: datetime
    created_by: str


class Position(NamedTuple):
    """Where an entry stands in the list."""

    created_at: datetime
    address_hash: bytes


FIRST: Final = Position(datetime.max.replace(tzinfo=UTC), b"")
"""The position before any entry."""


@dataclass(frozen=True, slots=True)
class Changed:
    """How many addresses were put on the list or taken off it, and how many users and messages followed.

    The messages are those that were cancelled or, if addresses were taken off the list, that are scheduled again.
    """

    addresses: int = 0
    users: int = 0
    messages: int = 0

    def __add__(self, other: "Changed") -> "Changed":
        """Return the totals of two batches."""
        return Changed(self.addresses + other.addresses, self.users + other.users, self.messages + other.messages)


async def read_links(connection: Connection) -> Links:
    """Return what makes and reads the unsubscribe links of this installation."""
    rows = await connection.fetch("SELECT name, value FROM secrets")
    secrets: dict[str, bytes] = {row["name"]: row["value"] for row in rows}
    return Links(secrets["address_salt"], secrets["unsubscribe_key"])


async def lock_address(connection: Connection, user_id: UUID) -> str:
    """Return a live user's address and hold the row until the transaction ends.

    Raises:
        NotFoundError: if there is no such live user.
    """
    email: str | None = await connection.fetchval(
        "SELECT email FROM users WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE", user_id
    )
    if email is None:
        raise unknown_user(user_id)
    return email


async def find_unlisted(connection: Connection, user_id: UUID, address_hash: bytes) -> str | None:
    """Return the address of the live user whose address has this hash, if that is no longer the address of ``user_id``.

    It is None if there is no such user, or the address is listed already. Reads all users, unless it is listed or still
    the address of ``user_id``.
    """
    # As address_hash() of the schema, but with the salt read once.
    email: str | None = await connection.fetchval(
        """
        SELECT email FROM users
        WHERE deleted_at IS NULL AND sha256((SELECT value FROM secrets WHERE name = 'address_salt')
                                            || convert_to(lower(email), 'UTF8')) = $1
          AND NOT EXISTS (SELECT FROM suppressions WHERE address_hash = $1)
          AND NOT EXISTS (SELECT FROM users WHERE id = $2 AND address_hash(email) = $1)
        """,
        address_hash,
        user_id,
    )
    return email


async def lock_addresses(connection: Connection, user_id: UUID, email: str | None) -> list[str]:
    """Hold a user, deleted or not, and the live user who has ``email``, if there is one; return their addresses.

    The list is empty if retention has removed the user.
    """
    # In order of id, as in _lock_users.
    rows = await connection.fetch(
        """
        SELECT email FROM users WHERE id = $1 OR lower(email) = lower($2::text) AND deleted_at IS NULL
        ORDER BY id FOR NO KEY UPDATE
        """,
        user_id,
        email,
    )
    return [row["email"] for row in rows]


async def read_newest_writer(connection: Connection) -> int:
    """Return a number above that of each transaction that has written something up to now."""
    number: int = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    return number


async def has_writers_before(connection: Connection, number: int) -> bool:
    """Say whether a transaction still runs that had written something before ``read_newest_writer``."""
    running: bool = await connection.fetchval(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint < $1", number
    )
    return running


async def add_hash(connection: Connection, address_hash: bytes, reason: str, now: datetime, by: Actor) -> bool:
    """Put a hashed address on the list; return whether it is new there."""
    status = await connection.execute(
        """
        INSERT INTO suppressions (address_hash, reason, created_at, created_by) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING
        """,
        address_hash,
        reason,
        now,
        by.name,
    )
    is_new: bool = status == "INSERT 0 1"
    await _record_added(connection, [address_hash] if is_new else [], reason, now, by)
    return is_new


async def suppress(connection: Connection, addresses: Sequence[str], reason: str, now: datetime, by: Actor) -> Changed:
    """Put addresses on the list, suppress their users and cancel what is pending; existing entries stay.

    Runs within the caller's transaction. A message that is being sent is not stopped.
    """
    await _lock_users(connection, addresses)
    listed = await connection.fetch(
        """
        INSERT INTO suppressions (address_hash, reason, created_at, created_by)
        SELECT DISTINCT address_hash(email), $2, $3::timestamptz, $4 FROM unnest($1::text[]) AS email ORDER BY 1
        ON CONFLICT DO NOTHING RETURNING address_hash
        """,
        addresses,
        reason,
        now,
        by.name,
    )
    await _record_added(connection, [row["address_hash"] for row in listed], reason, now, by)
    users = await connection.fetch(
        """
        UPDATE users SET suppressed = true, updated_at = $2
        WHERE lower(email) = ANY(ARRAY(SELECT lower(unnest($1::text[])))) AND deleted_at IS NULL AND NOT suppressed
        RETURNING id
        """,
        addresses,
        now,
    )
    cancelled = await connection.fetch(
        """
        UPDATE message_logs
        SET status = 'cancelled', error_detail = 'suppressed', updated_at = $2, next_attempt_at = NULL
        WHERE user_id = ANY($1::uuid[]) AND phase <> 'cancelled' AND status IN ('scheduled', 'queued', 'retrying')
        RETURNING id, may_have_arrived
        """,
        [row["id"] for row in users],
        now,
    )
    await keep_years(connection, cancelled)
    return Changed(len(listed), len(users), len(cancelled))


async def unsuppress(connection: Connection, addresses: Sequence[str], now: datetime, by: Actor) -> Changed:
    """Take addresses off the list. Their users are greeted again, also today if the day is not over for them.

    A message whose instant has passed is due now. One that may have arrived stays cancelled, and its year taken. Runs
    within the caller's transaction.
    """
    await _lock_users(connection, addresses)
    removed = await connection.fetch(
        """
        DELETE FROM suppressions WHERE address_hash IN (SELECT address_hash(email) FROM unnest($1::text[]) AS email)
        RETURNING address_hash, reason
        """,
        addresses,
    )
    changes = [
        by.change("removed", SUPPRESSION, row["address_hash"].hex(), {"reason": row["reason"]}) for row in removed
    ]
    await record_changes(connection, changes, now)
    users = await connection.fetch(
        """
        UPDATE users SET suppressed = false, updated_at = $2
        WHERE lower(email) = ANY(ARRAY(SELECT lower(unnest($1::text[])))) AND deleted_at IS NULL AND suppressed
        RETURNING id
        """,
        addresses,
        now,
    )
    # A worker may have seen these users suppressed, and be about to cancel their messages: its commit comes first.
    await connection.execute(
        """
        SELECT FROM message_logs
        WHERE user_id = ANY($1::uuid[]) AND phase <> 'cancelled' AND status IN ('scheduled', 'queued', 'retrying')
        ORDER BY id FOR UPDATE
        """,
        [row["id"] for row in users],
    )
    # The same row again, not a new one: the planner would give it the same id, which is the Idempotency-Key.
    status = await connection.execute(
        """
        UPDATE message_logs m
        SET status = 'scheduled', error_detail = NULL, updated_at = $2,
            requeued_at = CASE WHEN m.scheduled_at < $2 THEN $2 ELSE m.requeued_at END,
            scheduled_at = greatest(m.scheduled_at, $2)
        FROM users u
        WHERE m.user_id = ANY($1::uuid[]) AND u.id = m.user_id AND m.phase = 'cancelled' AND m.status = 'cancelled'
          AND m.error_detail = 'suppressed' AND NOT m.may_have_arrived AND m.ends_at > $2
          AND is_current(m, u)
          AND NOT EXISTS (
              SELECT FROM message_logs other
              WHERE other.user_id = m.user_id AND other.message_type = m.message_type
                AND other.occasion_year = m.occasion_year AND other.phase <> 'cancelled')
        """,
        [row["id"] for row in users],
        now,
    )
    return Changed(len(removed), len(users), rows_changed(status))


async def read_suppression(connection: Connection, email: str) -> Suppression | None:
    """Return the entry of an address; None if it is not on the list."""
    row = await connection.fetchrow(
        """
        SELECT address_hash, reason, created_at, created_by FROM suppressions
        WHERE address_hash = address_hash($1)
        """,
        email,
    )
    return None if row is None else Suppression(*row)


async def list_suppressions(connection: Connection, after: Position, limit: int) -> list[Suppression]:
    """Return up to ``limit`` entries that come after a position, newest first."""
    rows = await connection.fetch(
        """
        SELECT address_hash, reason, created_at, created_by FROM suppressions
        WHERE (created_at, address_hash) < ($1, $2)
        ORDER BY created_at DESC, address_hash DESC LIMIT $3
        """,
        *after,
        limit,
    )
    return [Suppression(*row) for row in rows]


async def _record_added(connection: Connection, hashes: Sequence[bytes], reason: str, now: datetime, by: Actor) -> None:
    changes = [by.change("added", SUPPRESSION, one.hex(), after={"reason": reason}) for one in hashes]
    await record_changes(connection, changes, now)


async def _lock_users(connection: Connection, addresses: Sequence[str]) -> None:
    """Lock live users before the list and their messages, in order of id, so that two such changes cannot deadlock."""
    await connection.execute(
        """
        SELECT FROM users WHERE lower(email) = ANY(ARRAY(SELECT lower(unnest($1::text[])))) AND deleted_at IS NULL
        ORDER BY id FOR NO KEY UPDATE
        """,
        addresses,
    )
