"""Everything that is held on one person, and its erasure. The user may be live, or deleted and not removed yet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from birthday.core.occasion import Rules
from birthday.store.changes import USER, Actor, Recorded, allow_removal, read_changes_about, record_changes
from birthday.store.connection import Connection, rows_changed
from birthday.store.history import Message, is_known, read_all_messages
from birthday.store.idempotency import StoredAnswer, forget_answers, read_answers
from birthday.store.suppressions import Suppression, read_suppression
from birthday.store.users import User, profile_of, read_users, unknown_user

ERASED: Final = "erased"
_WAS_SENDING: Final = "the person was erased while it was being sent: it may have arrived"


@dataclass(frozen=True, slots=True)
class PersonData:
    """What is held on a person. ``greeted_years`` are remembered by hash, by type, for earlier users of the person."""

    user: User
    deleted_at: datetime | None
    messages: Sequence[Message]
    suppression: Suppression | None
    greeted_years: Mapping[str, int]
    changes: Sequence[Recorded]
    answers: Sequence[StoredAnswer]


@dataclass(frozen=True, slots=True)
class Erased:
    """From how many rows personal data was removed, and how many messages ended for that."""

    profile: int = 0
    anniversaries: int = 0
    messages: int = 0
    changes: int = 0
    answers: int = 0
    suppressions: int = 0
    cancelled: int = 0
    given_up: int = 0


async def read_person(connection: Connection, user_id: UUID, now: datetime, rules: Rules) -> PersonData:
    """Return everything that is held on a person. Runs within a transaction of the caller that sees one state.

    Raises:
        NotFoundError: if there is no such user, live or deleted.
    """
    user, deleted_at = await read_any_user(connection, user_id, now, rules)
    hashes = await _hashes(connection, user_id)
    rows = await connection.fetch(
        """
        SELECT message_type, year FROM past_greetings
        WHERE person_hash = person_hash((SELECT value FROM secrets WHERE name = 'address_salt'), $1, $2)
        """,
        user.profile.email,
        user.profile.date_of_birth,
    )
    return PersonData(
        user,
        deleted_at,
        await read_all_messages(connection, user_id),
        await read_suppression(connection, user.profile.email),
        {row["message_type"]: row["year"] for row in rows},
        await read_changes_about(connection, [str(user_id), *(one.hex() for one in hashes)]),
        await read_answers(connection, user_id),
    )


async def erase(connection: Connection, user_id: UUID, now: datetime, by: Actor) -> Erased:
    """Remove the data of a person within the caller's transaction, and record that; safe to repeat.

    Messages, changes and the keys of answers stay, without anything personal. What is pending is cancelled. What is
    being sent has failed: its worker's outcome, which may tell of the person, is not stored any more. The list of
    suppressed addresses and the years that were greeted stay, as hashes.

    Raises:
        NotFoundError: if nothing is known of such a user.
    """
    # Users are locked before messages, as everywhere else.
    profile = await hold_user(connection, user_id)
    if not profile and not await _was_known(connection, user_id):
        raise unknown_user(user_id)
    hashes = await _hashes(connection, user_id)
    cancelled, given_up = await _end_messages(connection, user_id, now)
    erased = Erased(
        profile,
        await connection.fetchval("SELECT count(*) FROM anniversaries WHERE user_id = $1", user_id),
        await _count(
            connection,
            """
            UPDATE message_logs SET error_detail = NULL
            -- In two halves, because each of the two indexes by user holds one.
            WHERE (user_id = $1 AND phase <> 'cancelled' OR user_id = $1 AND phase = 'cancelled')
              AND error_detail <> $2
            """,
            user_id,
            _WAS_SENDING,
        ),
        await _blank_changes(connection, [str(user_id), *(one.hex() for one in hashes)]),
        await forget_answers(connection, [user_id]),
        await _count(
            connection,
            "UPDATE suppressions SET reason = $2 WHERE address_hash = ANY($1::bytea[]) AND reason <> $2",
            hashes,
            ERASED,
        ),
        cancelled,
        given_up,
    )
    # A trigger remembers the years that were greeted. The other yearly dates go with the user.
    await connection.execute("DELETE FROM users WHERE id = $1", user_id)
    if any(asdict(erased).values()):
        await record_changes(connection, [by.change(ERASED, USER, user_id)], now)
    return erased


async def hold_user(connection: Connection, user_id: UUID) -> int:
    """Hold the row of a user, live or deleted, until the transaction ends; return 0 if there is none."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM (SELECT FROM users WHERE id = $1 FOR UPDATE) held", user_id
    )
    return count


async def read_any_user(
    connection: Connection, user_id: UUID, now: datetime, rules: Rules
) -> tuple[User, datetime | None]:
    """Return a user, live or deleted, and when the user was deleted.

    Raises:
        NotFoundError: if there is no such user.
    """
    for user in await read_users(connection, [user_id], now, rules):
        return user, None
    row = await connection.fetchrow(
        """
        SELECT first_name, last_name, email, date_of_birth, timezone, external_id, locale, attributes, suppressed,
               created_at, updated_at, deleted_at, ARRAY(
                   SELECT ROW(message_type, date) FROM anniversaries WHERE user_id = $1 AND date IS NOT NULL) AS dates
        FROM users WHERE id = $1
        """,
        user_id,
    )
    if row is None:
        raise unknown_user(user_id)
    profile = profile_of(row, dict(tuple(one) for one in row["dates"]))
    return User(user_id, profile, (), row["created_at"], row["updated_at"]), row["deleted_at"]


async def _hashes(connection: Connection, user_id: UUID) -> list[bytes]:
    """Return the hashes of the addresses that a user has, and has had as far as changes tell."""
    rows = await connection.fetch(
        """
        SELECT address_hash(email) AS hash FROM users WHERE id = $1
        UNION
        SELECT address_hash(before ->> 'email') FROM changes
        WHERE entity_id = $1::text AND NOT (entity = 'user' AND action = 'created') AND before ? 'email'
        """,
        user_id,
    )
    return [row["hash"] for row in rows]


async def _was_known(connection: Connection, user_id: UUID) -> bool:
    return await is_known(connection, user_id) or bool(await read_changes_about(connection, [str(user_id)]))


async def _end_messages(connection: Connection, user_id: UUID, now: datetime) -> tuple[int, int]:
    """Cancel what is pending, and fail what is being sent, under no worker's lease; return how many of each."""
    rows = await connection.fetch(
        """
        UPDATE message_logs
        SET status = CASE status WHEN 'sending' THEN 'failed' ELSE 'cancelled' END,
            error_type = CASE status WHEN 'sending' THEN 'permanent_failure' ELSE error_type END,
            error_detail = CASE status WHEN 'sending' THEN $3 END,
            may_have_arrived = may_have_arrived OR status = 'sending',
            updated_at = $2, next_attempt_at = NULL, lease_until = NULL
        WHERE user_id = $1 AND phase <> 'cancelled' AND status IN ('scheduled', 'queued', 'retrying', 'sending')
        RETURNING status
        """,
        user_id,
        now,
        _WAS_SENDING,
    )
    statuses = [row["status"] for row in rows]
    return statuses.count("cancelled"), statuses.count("failed")


async def _blank_changes(connection: Connection, entity_ids: Sequence[str]) -> int:
    await allow_removal(connection)
    return await _count(
        connection,
        """
        UPDATE changes SET before = NULL, after = NULL
        WHERE entity_id = ANY($1::text[]) AND NOT (entity = 'user' AND action = 'created')
          AND coalesce(before, after) IS NOT NULL
        """,
        entity_ids,
    )


async def _count(connection: Connection, statement: str, *values: object) -> int:
    """Run a statement, and return how many rows it changed."""
    return rows_changed(await connection.execute(statement, *values))
