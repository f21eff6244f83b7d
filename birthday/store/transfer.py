"""Import of users: the set-based statements, and the temporary tables."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import orjson
from asyncpg import InFailedSQLTransactionError, InterfaceError

from birthday.core.origin import Origin
from birthday.core.plan import PlannedMessage
from birthday.core.user import NO_EXTRAS, Profile
from birthday.store.connection import Connection
from birthday.store.sessions import is_shared
from birthday.store.users import attributes_text


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
    """What became of a staged batch: how many messages were materialised, and the lines that created nobody.

    ``created_ids`` are the ids of the users that ``created_lines`` created, if they were asked for.
    """

    messages: int
    skipped_lines: Sequence[int]
    created_lines: Sequence[int] = ()
    created_ids: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True)
class Clash:
    """A line whose e-mail address, id or external id belongs to another user, the holder.

    ``first_line`` is the line of the same batch that created the holder, or None if the holder is older than the batch.
    ``differing`` names the JSON members in which the two differ; it is empty if the holder has been deleted meanwhile.
    ``deleted`` says that the line has the id of a deleted user; ``shared`` names the member that both have. ``user_id``
    is the holder, unless a dry run would have created them. ``equal`` says that there is no clash.
    """

    line: int
    first_line: int | None
    differing: Sequence[str]
    deleted: bool = False
    shared: str = "email"
    user_id: UUID | None = None
    equal: bool = False


@asynccontextmanager
async def staging(connection: Connection) -> AsyncIterator[None]:
    """Create the temporary tables of an import on ``connection``, and drop them at the end.

    ``import_stage`` holds the batch of the running transaction; ``import_rehearsed`` what a dry run would have created.
    """
    await connection.execute(
        """
        -- For a caller's transaction: the next rows may be long in coming.
        SET LOCAL idle_in_transaction_session_timeout = 0;
        CREATE TEMPORARY TABLE import_stage (
            line bigint NOT NULL,
            first_name text NOT NULL,
            last_name text NOT NULL,
            email text NOT NULL,
            date_of_birth date NOT NULL,
            timezone text NOT NULL,
            -- Null: not given.
            external_id text,
            locale text,
            attributes jsonb,
            suppressed boolean,
            -- Dates by type, and by type what else an export knows of them.
            anniversaries jsonb,
            anniversary_history jsonb,
            -- Of who was there before; null otherwise.
            id uuid,
            created_at timestamptz,
            schedule_from timestamptz,
            greeted_year smallint
        ) ON COMMIT DELETE ROWS;
        CREATE TEMPORARY TABLE import_rehearsed (LIKE import_stage, PRIMARY KEY (line));
        CREATE UNIQUE INDEX import_rehearsed_email ON import_rehearsed (lower(email));
        CREATE UNIQUE INDEX import_rehearsed_external_id ON import_rehearsed (external_id);
        CREATE UNIQUE INDEX import_rehearsed_id ON import_rehearsed (id)
        """
    )
    try:
        yield
    finally:
        # If the connection is lost, or the caller's transaction has failed, the server drops them.
        with suppress(InterfaceError, InFailedSQLTransactionError):
            await connection.execute("DROP TABLE import_stage, import_rehearsed")


async def stage_users(connection: Connection, users: Sequence[StagedUser]) -> None:
    """Copy a batch to the stage, where it stays until the caller's transaction ends, or the next one comes."""
    if is_shared(connection):
        await connection.execute("DELETE FROM import_stage")
    await connection.copy_records_to_table(
        "import_stage",
        columns=[
            *("line", "first_name", "last_name", "email", "date_of_birth", "timezone"),
            *("external_id", "locale", "attributes", "suppressed", "anniversaries"),
            *("id", "created_at", "schedule_from", "greeted_year", "anniversary_history"),
        ],
        records=[
            (
                line,
                profile.first_name,
                profile.last_name,
                profile.email,
                profile.date_of_birth,
                profile.zone,
                *_extras(profile),
                *_own(origin),
            )
            for line, profile, origin in users
        ],
    )


async def hold_staged(connection: Connection) -> None:
    """Lock the users whom staged rows may change, in the order in which they are changed, for the caller's transaction.

    Call this before ``create_staged``, for which a trigger locks them in another order: two imports would deadlock.
    """
    await connection.execute(
        """
        SELECT FROM users
        -- While the table is empty, the trigger locks nobody.
        WHERE pg_relation_size('past_greetings') > 0 AND id = ANY(ARRAY(
            SELECT found.id FROM import_stage staged CROSS JOIN LATERAL (
                SELECT id FROM users WHERE lower(users.email) = lower(staged.email) AND users.deleted_at IS NULL
                UNION ALL
                SELECT id FROM users WHERE users.external_id = staged.external_id AND users.deleted_at IS NULL
            ) found))
        ORDER BY id FOR NO KEY UPDATE
        """
    )


def _extras(profile: Profile) -> tuple[str | bool | None, ...]:
    extras = profile.extras
    if extras is NO_EXTRAS:
        return (None, None, None, None, None)
    anniversaries = orjson.dumps(extras.anniversaries).decode() if extras.anniversaries else None
    return (extras.external_id, extras.locale, attributes_text(profile), extras.suppressed or None, anniversaries)


def _own(origin: Origin | None) -> tuple[UUID | datetime | int | str | None, ...]:
    if origin is None:
        return (None, None, None, None, None)
    history = {name: each.model_dump(mode="json") for name, each in origin.anniversary_history.items()}
    return (
        origin.id,
        origin.created_at,
        origin.schedule_from,
        origin.greeted_year,
        orjson.dumps(history).decode() if history else None,
    )


async def create_staged(
    connection: Connection, messages: Sequence[StagedMessage], now: datetime, *, with_ids: bool = False
) -> StoredBatch:
    """Create the staged users whose e-mail address and ids are free, with their messages, in one statement.

    If several lines have the same address or external id, the first one gets it. Runs within the caller's transaction,
    after ``stage_users``. ``with_ids`` asks for the ids of the users.
    """
    # Inserted in order of address, so that concurrent imports cannot deadlock. If another transaction is inserting an
    # address, the statement waits, and the other one has the address if it commits.
    [row] = await connection.fetch(
        """
        WITH numbered AS MATERIALIZED (
            SELECT coalesce(id, uuid_v7($1)) AS id, line, first_name, last_name, email, date_of_birth, timezone,
                   external_id, locale, attributes, suppressed, anniversaries, anniversary_history,
                   coalesce(schedule_from, $1) AS schedule_from, coalesce(created_at, $1) AS created_at,
                   coalesce(greeted_year, 0) AS greeted_year
            -- Tells a trigger of users whether there is anything to look for, as when the API creates users.
            FROM set_config('birthday.past_greetings', CASE pg_relation_size('past_greetings') WHEN 0 THEN 'none' END,
                            true) AS greetings,
                 import_stage
        ), created AS (
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, external_id, locale,
                               attributes, suppressed, schedule_from, greeted_year, created_at, updated_at)
            SELECT id, first_name, last_name, email, date_of_birth, timezone, external_id, locale,
                   attributes, coalesce(suppressed, false), schedule_from, greeted_year, created_at, $1
            FROM numbered ORDER BY lower(email) COLLATE "C", line
            ON CONFLICT DO NOTHING
            RETURNING id, schedule_from, greeted_year
        ), dated AS (
            INSERT INTO anniversaries (user_id, message_type, date, timezone, schedule_from, greeted_year)
            SELECT created.id, given.message_type, (anniversaries ->> given.message_type)::date, timezone,
                   coalesce((anniversary_history -> given.message_type ->> 'schedule_from')::timestamptz,
                            created.schedule_from),
                   coalesce((anniversary_history -> given.message_type ->> 'greeted_year')::smallint, 0)
            FROM numbered JOIN created USING (id)
            -- A date that was taken back has a history only.
            CROSS JOIN LATERAL jsonb_object_keys(coalesce(anniversaries, '{}') || coalesce(anniversary_history, '{}'))
                AS given (message_type)
            WHERE anniversaries IS NOT NULL OR anniversary_history IS NOT NULL
            RETURNING user_id, message_type, schedule_from, greeted_year
        ), planned AS (
            INSERT INTO message_plans SELECT planned.*
            FROM unnest($2::bigint[], $3::text[], $4::smallint[], $5::date[], $6::timestamptz[], $7::timestamptz[])
                AS new (line, message_type, year, day, due_at, ends_at)
            JOIN numbered USING (line) JOIN created ON created.id = numbered.id
            LEFT JOIN dated ON dated.user_id = created.id AND dated.message_type = new.message_type
            LEFT JOIN planned_types t ON t.message_type = new.message_type
            CROSS JOIN LATERAL plan_message(
                created.id, new.message_type, coalesce(dated.schedule_from, created.schedule_from), new.year, new.day,
                greatest(new.due_at, t.planned_since), new.ends_at, $1, NULL) planned
            WHERE new.message_type = 'birthday' AND created.greeted_year < new.year
               OR t.planned_since < new.ends_at AND dated.greeted_year < new.year
            -- Messages outlive users: one of a user who comes back may be there.
            ON CONFLICT DO NOTHING
            RETURNING id
        )
        SELECT (SELECT count(*) FROM planned) AS messages,
               ARRAY(SELECT line FROM numbered
                     WHERE NOT EXISTS (SELECT FROM created WHERE created.id = numbered.id)) AS skipped_lines,
               ARRAY(SELECT line FROM numbered JOIN created USING (id) WHERE $8 ORDER BY line) AS created_lines,
               ARRAY(SELECT id FROM numbered JOIN created USING (id) WHERE $8 ORDER BY line) AS created_ids
        """,
        now,
        [staged.line for staged in messages],
        [staged.message.message_type for staged in messages],
        [staged.message.occasion.year for staged in messages],
        [staged.message.occasion.on for staged in messages],
        [staged.message.due_at for staged in messages],
        [staged.message.occasion.ends_at for staged in messages],
        with_ids,
    )
    return StoredBatch(*row)


async def rehearse_staged(connection: Connection, messages: Sequence[StagedMessage]) -> StoredBatch:
    """Return what ``create_staged`` would do after the earlier batches of the dry run; no user or message changes.

    A read-only transaction of the caller is enough. Call this after ``stage_users``.
    """
    # A sub-select that returns a value is used instead of NOT EXISTS. Like LIMIT in find_clashes, it makes an index
    # scan for each line, whatever the sizes of the tables were when the statement was planned.
    [row] = await connection.fetch(
        """
        WITH created AS (
            INSERT INTO import_rehearsed SELECT staged.* FROM import_stage staged
            WHERE (SELECT id FROM users
                   WHERE lower(users.email) = lower(staged.email) AND users.deleted_at IS NULL) IS NULL
              AND (SELECT id FROM users
                   WHERE users.external_id = staged.external_id AND users.deleted_at IS NULL) IS NULL
              AND (SELECT id FROM users WHERE users.id = staged.id) IS NULL
            ORDER BY line
            ON CONFLICT DO NOTHING
            RETURNING line
        )
        SELECT (SELECT count(*) FROM unnest($1::bigint[], $2::text[]) AS new (line, type) JOIN created USING (line)
                WHERE type = 'birthday' OR type IN (SELECT message_type FROM planned_types)) AS messages,
               ARRAY(SELECT line FROM import_stage
                     WHERE NOT EXISTS (SELECT FROM created WHERE created.line = import_stage.line)) AS skipped_lines
        """,
        [staged.line for staged in messages],
        [staged.message.message_type for staged in messages],
    )
    return StoredBatch(*row)


async def find_clashes(
    connection: Connection, skipped_lines: Sequence[int], *, external_id_first: bool = False, with_equal: bool = False
) -> list[Clash]:
    """Return the skipped lines that differ from the user who has their e-mail address or id, and leave out the others.

    What a line does not give does not differ. ``external_id_first`` compares with the user of that id, if there is one,
    rather than with the one who has the address. ``with_equal`` leaves out no line. Runs within the transaction that
    skipped the lines. It is a statement of its own, so that it sees a user whom another transaction has committed
    since.
    """
    # LIMIT makes the look-up of the holder an index scan for each line. Without it, a plan that was made while the
    # tables were small or empty could scan all users for each batch.
    rows = await connection.fetch(
        """
        WITH skipped AS MATERIALIZED (
            SELECT import_stage.* FROM import_stage JOIN unnest($1::bigint[]) AS given (line) USING (line)
        ), taken AS MATERIALIZED (
            SELECT lower(email) AS address, line
            FROM import_stage WHERE line NOT IN (SELECT line FROM skipped)
        ), compared AS (
            SELECT skipped.line, coalesce(found.shared, 'email') AS shared,
                   taken.line AS first_line, found.user_id,
                   holder.email IS NULL AS gone, holder.deleted_at IS NOT NULL AS deleted,
                   array_remove(ARRAY[
                       CASE WHEN holder.id <> skipped.id THEN 'id' END,
                       CASE WHEN lower(holder.email) <> lower(skipped.email) THEN 'email' END,
                       CASE WHEN holder.first_name <> skipped.first_name THEN 'firstName' END,
                       CASE WHEN holder.last_name <> skipped.last_name THEN 'lastName' END,
                       CASE WHEN holder.date_of_birth <> skipped.date_of_birth THEN 'dateOfBirth' END,
                       CASE WHEN holder.timezone <> skipped.timezone THEN 'timezone' END,
                       CASE WHEN coalesce(holder.external_id, '') <> skipped.external_id THEN 'externalId' END,
                       CASE WHEN coalesce(holder.locale, '') <> skipped.locale THEN 'locale' END,
                       CASE WHEN coalesce(holder.attributes, '{}') <> skipped.attributes THEN 'attributes' END,
                       CASE WHEN NOT coalesce(holder.anniversaries, '{}') @> skipped.anniversaries
                            THEN 'anniversaries' END,
                       CASE WHEN NOT coalesce(holder.suppressed, false) AND skipped.suppressed THEN 'suppressed' END
                   ], NULL) AS differing
            FROM skipped
            LEFT JOIN LATERAL (
                SELECT 'externalId' AS shared, id AS user_id, NULL::bigint AS rehearsed_line
                FROM users WHERE $2 AND users.external_id = skipped.external_id AND users.deleted_at IS NULL
                UNION ALL
                SELECT 'email', id, NULL
                FROM users WHERE lower(users.email) = lower(skipped.email) AND users.deleted_at IS NULL
                UNION ALL
                SELECT 'email', NULL, line FROM import_rehearsed WHERE lower(email) = lower(skipped.email)
                UNION ALL
                SELECT 'id', id, NULL FROM users WHERE users.id = skipped.id
                UNION ALL
                SELECT 'id', NULL, line FROM import_rehearsed WHERE id = skipped.id
                UNION ALL
                SELECT 'externalId', id, NULL
                FROM users WHERE users.external_id = skipped.external_id AND users.deleted_at IS NULL
                UNION ALL
                SELECT 'externalId', NULL, line FROM import_rehearsed WHERE external_id = skipped.external_id
                LIMIT 1
            ) found ON true
            LEFT JOIN LATERAL (
                SELECT id, email, first_name, last_name, date_of_birth, timezone, external_id, locale, attributes,
                       suppressed, deleted_at, (
                           SELECT jsonb_object_agg(message_type, date) FROM anniversaries
                           WHERE user_id = found.user_id AND date IS NOT NULL) AS anniversaries
                FROM users WHERE id = found.user_id
                UNION ALL
                SELECT id, email, first_name, last_name, date_of_birth, timezone, external_id, locale, attributes,
                       suppressed, NULL, anniversaries
                FROM import_rehearsed WHERE line = found.rehearsed_line
            ) holder ON true
            LEFT JOIN taken ON taken.address = lower(holder.email)
        )
        SELECT line, shared, first_line, user_id, deleted, differing,
               NOT gone AND NOT deleted AND differing = '{}' AS equal
        FROM compared WHERE gone OR deleted OR differing <> '{}' OR $3 ORDER BY line
        """,
        skipped_lines,
        external_id_first,
        with_equal,
    )
    return [Clash(**dict(row)) for row in rows]
