"""A database with a past: ``python -m benchmarks.past --rows 50000000 --database postgresql://...``.

Each of the rows of ``message_logs`` is a message that was delivered within the last three months, in the order in which
they were delivered. A user has four of them, of four years: what counts here is that the users of one day are anywhere
in ``users``. Tables are filled first and get their indexes afterwards. 50 million rows need 30 GB and half an hour.
"""

import argparse
import asyncio
import sys
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from benchmarks.measure import tell
from birthday.store.connection import Connection

MESSAGES_OF_A_USER = 4
LENGTH = timedelta(days=91)
CHUNK = 1_000_000
AGED = 1000
"""One row of so many is much older than its neighbours, and removed again."""


async def make_past(connection: Connection, rows: int, now: datetime) -> None:
    """Fill an empty database. A small table notes how much there is, for ``add_queued``."""
    users = rows // MESSAGES_OF_A_USER
    await connection.execute("SET maintenance_work_mem = '1GB'; SET synchronous_commit = off")
    await connection.execute("CREATE TABLE past (users bigint, messages bigint, schedule_from timestamptz)")
    await connection.execute("INSERT INTO past VALUES ($1, 0, $2)", users, now - 4 * LENGTH)
    await connection.execute(_USER_ID)
    indexes = [one for table in ("users", "message_logs") for one in await _drop_indexes(connection, table)]
    for start in range(0, users, CHUNK):
        await connection.execute(_USERS, start, min(start + CHUNK, users), now - 4 * LENGTH, timeout=None)
    for start in range(0, rows, CHUNK):
        await _add(connection, min(CHUNK, rows - start), "delivered", now - LENGTH, LENGTH / rows)
        tell(f"  {start + CHUNK:,} rows")
    for index in indexes:
        await connection.execute(index, timeout=None)
        tell(f"  {index}")
    # As after a year of retention: each range of blocks has held a row that is long gone, which its summary in
    # message_logs_created never forgets.
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("DELETE FROM message_logs WHERE created_at < $1", now - 2 * LENGTH, timeout=None)
    await connection.execute("RESET session_replication_role")
    await connection.execute("VACUUM (ANALYZE)", timeout=None)


async def add_queued(connection: Connection, count: int, now: datetime) -> list[UUID]:
    """Add messages that are due now, as the dispatcher leaves them; return their ids."""
    return await _add(connection, count, "queued", now, timedelta())


async def _add(connection: Connection, count: int, status: str, begin: datetime, step: timedelta) -> list[UUID]:
    rows = await connection.fetch(_MESSAGES, count, status, begin, step, AGED, 4 * LENGTH, timeout=None)
    return [UUID(bytes=row["id"].bytes) for row in rows]


async def _drop_indexes(connection: Connection, table: str) -> list[str]:
    """Drop the indexes of a table but for its primary key; return the statements that make them."""
    rows = await connection.fetch(
        """
        SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
        WHERE indrelid = $1::text::regclass AND NOT indisprimary
        """,
        table,
    )
    for row in rows:
        await connection.execute(f"DROP INDEX {row['name']}")
    return [row["definition"] for row in rows]


_USER_ID = """
CREATE FUNCTION past_user(number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN overlay(md5(number::text) PLACING lpad(to_hex(1600000000000 + number * 1000), 12, '0') FROM 1 FOR 12)::uuid
"""
"""The id of the user with a number: in order of time, as those of real users are."""

_USERS = """
INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at, updated_at)
SELECT past_user(number), 'Ada', 'Lovelace' || number, 'person' || number || '@example.com',
       date '1950-01-01' + (hashint8(number) & 16383), 'UTC', $3, $3, $3
FROM generate_series($1::bigint, $2::bigint - 1) AS number
"""

_MESSAGES = """
WITH before AS (
    SELECT users, messages, schedule_from FROM past
), noted AS (
    UPDATE past SET messages = messages + $1
), made AS (
    INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                              attempts, queued_at, sent_at, delivered_at, created_at, updated_at,
                              template, locale, version, feed_position)
    SELECT message_id(u.id, 'birthday', m.occasion_on, u.schedule_from), u.id, 2000 + number / users, m.occasion_on,
           m.at, m.at + interval '15 hours', u.schedule_from, $2,
           CASE WHEN is_over THEN 1 ELSE 0 END, m.at, CASE WHEN is_over THEN m.at END, CASE WHEN is_over THEN m.at END,
           m.at - CASE WHEN is_over AND number % $5 = 0 THEN $6::interval ELSE interval '2 days' END, m.at,
           CASE WHEN is_over THEN 'birthday' END, CASE WHEN is_over THEN 'default' END, CASE WHEN is_over THEN 0 END,
           CASE WHEN is_over THEN number / 200 - 1000000000 END
    FROM before
    CROSS JOIN generate_series(messages, messages + $1 - 1) AS number
    -- A prime that is larger than any number of users: neighbours in time live far from each other.
    CROSS JOIN LATERAL (SELECT past_user(number * 2654435761 % users) AS id, schedule_from) u
    CROSS JOIN LATERAL (SELECT $3::timestamptz + (number * $4::interval) AS at) due
    -- A user has each message on another day, also if there are few users.
    CROSS JOIN LATERAL (SELECT at, at::date + (number / users)::int AS occasion_on, $2 = 'delivered' AS is_over) m
    RETURNING id, status, updated_at, feed_position
), placed AS (
    INSERT INTO outcomes (position, stored_at, ids)
    SELECT feed_position, max(updated_at), array_agg(id ORDER BY id) FROM made
    WHERE feed_position IS NOT NULL GROUP BY feed_position
)
SELECT id FROM made WHERE status = 'queued'
"""


def row_count(text: str) -> int:
    """Read the value of ``--rows``.

    Raises:
        argparse.ArgumentTypeError: if it is not a number, or is too small for the messages to have any age.
    """
    if not text.isdecimal() or int(text) < AGED:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of at least {AGED} is accepted")
    return int(text)


async def fill(url: str, rows: int) -> None:
    """Fill the database at ``url`` with ``rows`` messages that are in the past now; see ``make_past``."""
    connection = await asyncpg.connect(url)
    try:
        await make_past(connection, rows, datetime.now(UTC))
    finally:
        await connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.past", description=__doc__)
    parser.add_argument("--rows", type=row_count, default=1_000_000)
    parser.add_argument("--database", required=True, help="postgresql://..., which must be migrated and empty")
    options = parser.parse_args(sys.argv[1:])
    asyncio.run(fill(options.database, options.rows))
