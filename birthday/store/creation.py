"""New users: one or many are stored in one transaction, together with the messages that fall due soon."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from birthday.core.occasion import Rules
from birthday.core.plan import PlannedMessage, look_ahead
from birthday.core.user import NO_EXTRAS, Profile
from birthday.errors import ConflictError, UnavailableError
from birthday.store.changes import Actor
from birthday.store.connection import LOAN_SECONDS, Connection, borrow, rehearsal
from birthday.store.idempotency import Answer, KeyedRequest, store_answers
from birthday.store.users import Planning, User, conflict, email_taken, read_users


class NewUser(NamedTuple):
    """A user to store, with the messages to materialise at once. ``user.created_at`` is also ``schedule_from``.

    ``by`` asked for it. ``traceparent`` is the context of the request, if that is traced. ``answer`` returns what is
    stored with the user as the answer to a request with an Idempotency-Key.
    """

    user: User
    messages: list[PlannedMessage]
    rules: Rules
    by: Actor
    traceparent: str | None = None
    answer: Callable[[User], tuple[KeyedRequest, Answer]] | None = None


def plan_user(
    user_id: UUID, profile: Profile, now: datetime, planning: Planning, by: Actor, traceparent: str | None = None
) -> NewUser:
    """Return a user who is created ``now``, with the messages that fall due soon."""
    ahead = look_ahead(profile, now, planning.horizon, planning.rules)
    return NewUser(User(user_id, profile, ahead.upcoming, now, now), ahead.messages, planning.rules, by, traceparent)


async def create_users(
    pool: asyncpg.Pool, users: Sequence[NewUser], seconds: float = LOAN_SECONDS, lock_seconds: float | None = None
) -> Sequence[User | ConflictError]:
    """Store new users with their messages, in one transaction, and return what became of each.

    Answers to requests with a key are stored in it too. Nearly all users have nothing but their own row: for these, one
    statement is the transaction.

    The result for each is the user, or a ``ConflictError`` if a live user has the e-mail address. A user whose address
    is on the list of suppressed ones is suppressed. A person who was greeted this year under an earlier user is not
    greeted again. If the database refuses one row, or one row waits too long for another transaction, all fail.

    Raises:
        UniqueViolationError: if a live user has the external id of one of several. Of one, it is a ``ConflictError``.
        RepeatedError: if there is an answer to one of the requests with a key already. Then nobody was created.
        UnavailableError: if the database cannot be used: nobody was created, unless only the answer was lost.
        LockNotAvailableError: if a row has waited for a lock for ``lock_seconds``; None keeps the session's limit.
    """
    try:
        async with borrow(pool, seconds) as connection:
            if not any(new.answer or new.messages or new.user.profile.extras.anniversaries for new in users):
                return await _create(connection, users, lock_seconds)
            async with connection.transaction():
                outcomes = await _create(connection, users, lock_seconds)
                asked = [(new.answer, user) for new, user in zip(users, outcomes, strict=True) if new.answer]
                await store_answers(connection, [answer(user) for answer, user in asked if isinstance(user, User)])
                return outcomes
    except asyncpg.UniqueViolationError as error:
        if len(users) > 1:
            raise
        raise conflict(error, users[0].user.profile) from None


async def rehearse_user(pool: asyncpg.Pool, new: NewUser) -> User:
    """Return what ``create_users`` would make of a user, who is not created.

    Raises:
        ConflictError: if a live user has the e-mail address or the external id.
        UnavailableError: if the database cannot be used.
    """
    try:
        async with borrow(pool) as connection, rehearsal(connection):
            [outcome] = await _create(connection, [new], None)
    except asyncpg.UniqueViolationError as error:
        raise conflict(error, new.user.profile) from None
    if isinstance(outcome, ConflictError):
        raise outcome
    return outcome


async def _create(
    connection: Connection, users: Sequence[NewUser], lock_seconds: float | None
) -> list[User | ConflictError]:
    rows = await _insert_users(connection, users, lock_seconds)
    # Each user is looked up once, because the hash of an id is slow.
    pairs = [(new, rows.get(new.user.id)) for new in users]
    created = [(new, row) for new, row in pairs if row is not None]
    await _insert_occasions(connection, created)
    unsure = [new.user.id for new, row in created if _is_unsure(new, row)]
    if not unsure and len(created) == len(users):
        return [new.user for new in users]
    now, rules = users[0].user.created_at, users[0].rules
    found = {user.id: user for user in await _read_created(connection, unsure, now, rules)} if unsure else {}
    return [email_taken(new.user.profile) if row is None else found.get(new.user.id, new.user) for new, row in pairs]


async def _read_created(connection: Connection, ids: Sequence[UUID], now: datetime, rules: Rules) -> list[User]:
    """Read users who were just created.

    Raises:
        UnavailableError: if they cannot be read, but stay created, because no transaction is open.
    """
    try:
        return await read_users(connection, ids, now, rules)
    except asyncpg.PostgresError as error:
        if connection.is_in_transaction():
            raise
        raise UnavailableError("database", f"new users cannot be read: {error}", maybe_done=True) from error


def _is_unsure(new: NewUser, row: asyncpg.Record) -> bool:
    """Say whether only the database knows which messages a user gets: it knows what is planned and who opted out."""
    return bool(row["suppressed"] or row["greeted_year"] or new.user.profile.extras.anniversaries)


async def _insert_users(
    connection: Connection, users: Sequence[NewUser], lock_seconds: float | None
) -> dict[UUID, asyncpg.Record]:
    """Insert users whose address is free, and record who asked for them. The first of two gets an address.

    Returns:
        By id, whether each is suppressed, and the year that an earlier user of the same person was greeted in, or 0.
    """
    # The rows are inserted in order of address, as in an import, so that concurrent statements cannot deadlock. If
    # another transaction is inserting an address, the statement waits, and the other one has the address if it commits.
    # lock_timeout limits this wait for all rows: it is set before the first row is read, until the transaction ends.
    # birthday.suppressions tells a trigger of users that the list has been read here, and birthday.past_greetings
    # another one whether there is anything to look for.
    # The rows are passed as JSON, because a dozen arrays are twice the work for asyncpg.
    rows = await connection.fetch(
        """
        WITH created AS (
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, external_id, locale,
                               attributes, suppressed, schedule_from, created_at, updated_at)
            SELECT id, first_name, last_name, email, date_of_birth, timezone, external_id, locale,
                   attributes,
                   coalesce(suppressed, false) OR (SELECT EXISTS (SELECT FROM suppressions)) AND EXISTS (
                       SELECT FROM suppressions s WHERE s.address_hash = address_hash(email)),
                   created_at, created_at, created_at
            FROM (SELECT CASE WHEN $2::text IS NOT NULL THEN set_config('lock_timeout', $2, true) END,
                         set_config('birthday.suppressions', 'read', true),
                         set_config('birthday.past_greetings',
                                    CASE pg_relation_size('past_greetings') WHEN 0 THEN 'none' END, true)) AS settings,
                 json_to_recordset($1::json) AS given (
                     id uuid, first_name text, last_name text, email text, date_of_birth date, timezone text,
                     external_id text, locale text, attributes jsonb, suppressed boolean, created_at timestamptz)
            ORDER BY lower(email) COLLATE "C", id
            ON CONFLICT (lower(email)) WHERE deleted_at IS NULL DO NOTHING
            RETURNING id, suppressed, greeted_year, created_at
        ), recorded AS (
            -- What they are is in the rows of users.
            INSERT INTO changes (id, at, actor, action, entity, entity_id, request_id)
            SELECT id, created_at, $3::jsonb -> id::text ->> 0, 'created', 'user', id, $3::jsonb -> id::text ->> 1
            FROM created
        )
        SELECT id, suppressed, greeted_year FROM created
        """,
        _json([_user_row(new.user) for new in users]),
        None if lock_seconds is None else f"{lock_seconds:g}s",
        # Read by key: a join would cost more than the row.
        orjson.dumps(
            {new.user.id: (new.by.name, new.by.request_id) for new in users}, option=orjson.OPT_NON_STR_KEYS
        ).decode(),
    )
    return {row["id"]: row for row in rows}


async def _insert_occasions(connection: Connection, created: Sequence[tuple[NewUser, asyncpg.Record]]) -> None:
    """Insert the anniversaries of users who were created in this transaction, and the messages that are not over.

    Apart from their rows, because to prepare this in vain would cost a quarter of creating a user. It does not read
    their rows: a plan that was made while there were few users would read all of them.
    """
    if not any(new.messages or new.user.profile.extras.anniversaries for new, _ in created):
        return
    dates = [row for new, _ in created for row in _anniversary_rows(new.user)]
    messages = [_message_row(new, message, row["greeted_year"]) for new, row in created for message in new.messages]
    await connection.execute(
        """
        WITH dated AS (
            INSERT INTO anniversaries (user_id, message_type, date, timezone, schedule_from)
            SELECT user_id, type, date, timezone, created_at
            FROM json_to_recordset($1::json) AS new (
                user_id uuid, type text, date date, timezone text, created_at timestamptz)
            RETURNING user_id, message_type, greeted_year
        )
        INSERT INTO message_plans SELECT planned.*
        FROM json_to_recordset($2::json) AS new (
            user_id uuid, type text, year smallint, day date, due_at timestamptz, ends_at timestamptz,
            created_at timestamptz, greeted_year smallint, traceparent text)
        CROSS JOIN LATERAL plan_message(
            new.user_id, new.type, new.created_at, new.year, new.day, new.due_at, new.ends_at, new.created_at,
            new.traceparent) planned
        WHERE new.type = 'birthday' AND new.greeted_year < new.year
           OR new.type IN (SELECT message_type FROM planned_types) AND NOT EXISTS (
               SELECT FROM dated WHERE dated.user_id = new.user_id AND dated.message_type = new.type
                                   AND dated.greeted_year >= new.year)
        """,
        _json(dates),
        _json(messages),
    )


def _user_row(user: User) -> dict[str, Any]:
    profile = user.profile
    row = {
        "id": user.id,
        "first_name": profile.first_name,
        "last_name": profile.last_name,
        "email": profile.email,
        "date_of_birth": profile.date_of_birth,
        "timezone": profile.zone,
        "created_at": user.created_at,
    }
    extras = profile.extras
    if extras is not NO_EXTRAS:
        row |= {
            "external_id": extras.external_id,
            "locale": extras.locale,
            "attributes": extras.attributes or None,
            "suppressed": extras.suppressed,
        }
    return row


def _anniversary_rows(user: User) -> list[dict[str, Any]]:
    profile = user.profile
    return [
        {"user_id": user.id, "type": name, "date": day, "timezone": profile.zone, "created_at": user.created_at}
        for name, day in profile.extras.anniversaries.items()
    ]


def _message_row(new: NewUser, message: PlannedMessage, greeted_year: int) -> dict[str, Any]:
    occasion = message.occasion
    return {
        "user_id": new.user.id,
        "type": message.message_type,
        "year": occasion.year,
        "day": occasion.on,
        "due_at": message.due_at,
        "ends_at": occasion.ends_at,
        "created_at": new.user.created_at,
        "greeted_year": greeted_year,
        "traceparent": new.traceparent,
    }


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
