"""Import and export of users: the set-based statements, and the temporary tables that an import works in."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from asyncpg import InterfaceError, Record
from asyncpg.cursor import Cursor

from birthday.core.message import BIRTHDAY
from birthday.core.origin import Origin
from birthday.core.plan import PlannedMessage
from birthday.core.user import Profile
from birthday.store.users import Connection


class StagedUser(NamedTuple):
    """A user to create, and its line in the file. A user with an ``origin`` existed before, and is restored."""

    line: int
    profile: Profile
    origin: Origin | None = None


class StagedMessage(NamedTuple):
    """A message that must be materialised together with the user whom ``line`` creates."""

    line: int
    message: PlannedMessage


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """What became of a staged batch: how many messages were materialised, and the lines that created nobody."""

    messages: int
    skipped_lines: Sequence[int]


@dataclass(frozen=True, slots=True)
class Clash:
    """A line whose e-mail address, or id, belongs to another user, the holder.

    ``first_line`` is the line of the same batch that created the holder, or None if the holder is older than the batch.
    ``differing`` names the JSON members in which the two differ; it is empty if the holder has been deleted meanwhile.
    ``deleted`` says that the line has the id of a deleted user.
    """

    line: int
    email: str
    first_line: int | None
    differing: Sequence[str]
    deleted: bool = False


@asynccontextmanager
async def staging(connection: Connection) -> AsyncIterator[None]:
    """Create the temporary tables of an import on ``connection``, and drop them at the end.

    ``import_stage`` holds the batch of the running transaction; ``import_rehearsed`` what a dry run would have created.
    """
    await connection.execute(
        """
        CREATE TEMPORARY TABLE import_stage (
            line bigint NOT NULL,
            first_name text NOT NULL,
            last_name text NOT NULL,
            email text NOT NULL,
            date_of_birth date NOT NULL,
            timezone text NOT NULL,
            -- Of who was there before; null otherwise.
            id uuid,
            created_at timestamptz,
            schedule_from timestamptz,
            greeted_year smallint
        ) ON COMMIT DELETE ROWS;
        CREATE TEMPORARY TABLE import_rehearsed (LIKE import_stage);
        CREATE UNIQUE INDEX import_rehearsed_email ON import_rehearsed (lower(email));
        CREATE UNIQUE INDEX import_rehearsed_id ON import_rehearsed (id)
        """
    )
    try:
        yield
    finally:
        # If the connection is lost, the server has dropped them.
        with suppress(InterfaceError):
            await connection.execute("DROP TABLE import_stage, import_rehearsed")


async def stage_users(connection: Connection, users: Sequence[StagedUser]) -> None:
    """Copy a batch to the stage, where it stays until the caller's transaction ends."""
    await connection.copy_records_to_table(
        "import_stage",
        columns=[
            *("line", "first_name", "last_name", "email", "date_of_birth", "timezone"),
            *("id", "created_at", "schedule_from", "greeted_year"),
        ],
        records=[
            (
                line,
                profile.first_name,
                profile.last_name,
                profile.email,
                profile.date_of_birth,
                profile.zone,
                *_own(origin),
            )
            for line, profile, origin in users
        ],
    )


def _own(origin: Origin | None) -> tuple[UUID | datetime | int | None, ...]:
    if origin is None:
        return (None, None, None, None)
    return (origin.id, origin.created_at, origin.schedule_from, origin.greeted_year)


async def create_staged(connection: Connection, messages: Sequence[StagedMessage], now: datetime) -> StoredBatch:
    """Create the staged users whose e-mail address and id are free, with their messages, in one statement.

    If several lines have the same address, the first one gets it. Runs within the caller's transaction, after
    ``stage_users``.
    """
    # Inserted in order of address, so that concurrent imports cannot deadlock. If another transaction is inserting an
    # address, the statement waits, and the other one has the address if it commits.
    row = await connection.fetchrow(
        """
        WITH numbered AS MATERIALIZED (
            SELECT coalesce(id, uuid_v7($1)) AS id, line, first_name, last_name, email, date_of_birth, timezone,
                   coalesce(schedule_from, $1) AS schedule_from, coalesce(created_at, $1) AS created_at,
                   coalesce(greeted_year, 0) AS greeted_year
            FROM import_stage
        ), created AS (
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                               schedule_from, greeted_year, created_at, updated_at)
            SELECT id, first_name, last_name, email, date_of_birth, timezone,
                   schedule_from, greeted_year, created_at, $1
            FROM numbered ORDER BY lower(email) COLLATE "C", line
            ON CONFLICT DO NOTHING
            RETURNING id, schedule_from
        ), planned AS (
            INSERT INTO message_plans SELECT planned.*
            FROM unnest($2::bigint[], $3::text[], $4::smallint[], $5::date[], $6::timestamptz[], $7::timestamptz[])
                AS new (line, message_type, year, day, due_at, ends_at)
            JOIN numbered USING (line) JOIN created ON created.id = numbered.id
            CROSS JOIN LATERAL plan_message(
                created.id, new.message_type, created.schedule_from, new.year, new.day, new.due_at, new.ends_at,
                $1, NULL) planned
            -- Messages outlive users: one of a user who comes back may be there.
            ON CONFLICT DO NOTHING
            RETURNING id
        )
        SELECT (SELECT count(*) FROM planned) AS messages,
               ARRAY(SELECT line FROM numbered
                     WHERE NOT EXISTS (SELECT FROM created WHERE created.id = numbered.id)) AS skipped_lines
        """,
        now,
        [staged.line for staged in messages],
        [staged.message.occasion.message_type for staged in messages],
        [staged.message.occasion.year for staged in messages],
        [staged.message.occasion.on for staged in messages],
        [staged.message.due_at for staged in messages],
        [staged.message.occasion.ends_at for staged in messages],
    )
    return _stored(row)


async def rehearse_staged(connection: Connection, messages: Sequence[StagedMessage]) -> StoredBatch:
    """Return what ``create_staged`` would do after the earlier batches of the dry run; no user or message changes.

    A read-only transaction of the caller is enough. Call this after ``stage_users``.
    """
    # A sub-select that returns a value is used instead of NOT EXISTS. Like LIMIT in find_clashes, it makes an index
    # scan for each line, whatever the sizes of the tables were when the statement was planned.
    row = await connection.fetchrow(
        """
        WITH created AS (
            INSERT INTO import_rehearsed (line, first_name, last_name, email, date_of_birth, timezone, id)
            SELECT line, first_name, last_name, email, date_of_birth, timezone, id FROM import_stage staged
            WHERE (SELECT id FROM users
                   WHERE lower(users.email) = lower(staged.email) AND users.deleted_at IS NULL) IS NULL
              AND (SELECT id FROM users WHERE users.id = staged.id) IS NULL
            ORDER BY line
            ON CONFLICT DO NOTHING
            RETURNING line
        )
        SELECT (SELECT count(*) FROM unnest($1::bigint[]) AS planned (line) JOIN created USING (line)) AS messages,
               ARRAY(SELECT line FROM import_stage
                     WHERE NOT EXISTS (SELECT FROM created WHERE created.line = import_stage.line)) AS skipped_lines
        """,
        [staged.line for staged in messages],
    )
    return _stored(row)


async def find_clashes(connection: Connection, skipped_lines: Sequence[int]) -> list[Clash]:
    """Return the skipped lines that differ from the user who has their e-mail address or id, and leave out the others.

    Runs within the transaction that skipped them. It is a statement of its own, so that it sees a user whom another
    transaction has committed since.
    """
    # LIMIT makes the look-up of the holder an index scan for each line. Without it, a plan that was made while the
    # tables were small or empty could scan all users for each batch.
    rows = await connection.fetch(
        """
        WITH skipped AS MATERIALIZED (
            SELECT line, first_name, last_name, email, date_of_birth, timezone, id
            FROM import_stage JOIN unnest($1::bigint[]) AS given (line) USING (line)
        ), taken AS MATERIALIZED (
            SELECT lower(email) AS address, line
            FROM import_stage WHERE line NOT IN (SELECT line FROM skipped)
        )
        SELECT skipped.line, skipped.email, taken.line AS first_line, holder.deleted_at IS NOT NULL AS deleted,
               array_remove(ARRAY[
                   CASE WHEN holder.id <> skipped.id THEN 'id' END,
                   CASE WHEN lower(holder.email) <> lower(skipped.email) THEN 'email' END,
                   CASE WHEN holder.first_name <> skipped.first_name THEN 'firstName' END,
                   CASE WHEN holder.last_name <> skipped.last_name THEN 'lastName' END,
                   CASE WHEN holder.date_of_birth <> skipped.date_of_birth THEN 'dateOfBirth' END,
                   CASE WHEN holder.timezone <> skipped.timezone THEN 'timezone' END], NULL) AS differing
        FROM skipped
        LEFT JOIN LATERAL (
            SELECT id, email, first_name, last_name, date_of_birth, timezone, deleted_at FROM users
            WHERE lower(users.email) = lower(skipped.email) AND users.deleted_at IS NULL
            UNION ALL
            SELECT id, email, first_name, last_name, date_of_birth, timezone, NULL FROM import_rehearsed
            WHERE lower(import_rehearsed.email) = lower(skipped.email)
            UNION ALL
            SELECT id, email, first_name, last_name, date_of_birth, timezone, deleted_at FROM users
            WHERE users.id = skipped.id
            UNION ALL
            SELECT id, email, first_name, last_name, date_of_birth, timezone, NULL FROM import_rehearsed
            WHERE import_rehearsed.id = skipped.id
            LIMIT 1
        ) holder ON true
        LEFT JOIN taken ON taken.address = lower(skipped.email)
        WHERE (holder.first_name, holder.last_name, holder.date_of_birth, holder.timezone) IS DISTINCT FROM
              (skipped.first_name, skipped.last_name, skipped.date_of_birth, skipped.timezone)
           OR holder.id <> skipped.id OR lower(holder.email) <> lower(skipped.email) OR holder.deleted_at IS NOT NULL
        ORDER BY skipped.line
        """,
        skipped_lines,
    )
    return [
        Clash(row["line"], row["email"], row["first_line"], row["differing"], deleted=row["deleted"]) for row in rows
    ]


async def open_users(connection: Connection) -> Cursor:
    """Open a cursor over all live users, as they are now, in order of id. Runs within the caller's transaction."""
    return await connection.cursor(
        """
        SELECT id, first_name, last_name, email, date_of_birth, timezone, created_at, updated_at, schedule_from,
               greatest(greeted_year, (
                   SELECT max(occasion_year) FROM message_logs
                   WHERE user_id = users.id AND message_type = $1 AND status = 'delivered')) AS greeted_year
        FROM users WHERE deleted_at IS NULL ORDER BY id
        """,
        BIRTHDAY,
    )


async def open_deletions(connection: Connection) -> Cursor:
    """Open a cursor over the deleted users whom retention has not removed yet. Runs within the caller's transaction."""
    return await connection.cursor(
        "SELECT id, deleted_at FROM users WHERE deleted_at IS NOT NULL ORDER BY deleted_at, id"
    )


async def delete_again(connection: Connection, ids: Sequence[UUID], now: datetime) -> tuple[int, int]:
    """Delete those of ``ids`` that are live users, and cancel their pending messages; return how many of each.

    Runs within the caller's transaction.
    """
    # Locked in order of id, so that two such statements cannot deadlock.
    row = await connection.fetchrow(
        """
        WITH held AS MATERIALIZED (
            SELECT id FROM users WHERE id = ANY($1) AND deleted_at IS NULL ORDER BY id FOR UPDATE
        ), deleted AS (
            UPDATE users SET deleted_at = $2, updated_at = $2 FROM held WHERE users.id = held.id RETURNING users.id
        ), cancelled AS (
            UPDATE message_logs SET status = 'cancelled', updated_at = $2, next_attempt_at = NULL
            FROM deleted
            WHERE user_id = deleted.id AND status IN ('scheduled', 'queued', 'retrying')
            RETURNING message_logs.id
        )
        SELECT (SELECT count(*) FROM deleted) AS users, (SELECT count(*) FROM cancelled) AS messages
        """,
        ids,
        now,
    )
    assert row is not None  # noqa: S101 - it selects one row, whatever there is
    return row["users"], row["messages"]


def profile_of(row: Record) -> Profile:
    """Return the profile in a row of ``open_users``."""
    return Profile(row["first_name"], row["last_name"], row["email"], row["date_of_birth"], row["timezone"])


def _stored(row: Record | None) -> StoredBatch:
    assert row is not None  # noqa: S101  both statements select one row, whatever there is
    return StoredBatch(row["messages"], row["skipped_lines"])
