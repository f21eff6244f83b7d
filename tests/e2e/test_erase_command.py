"""``birthday erase`` from outside."""

from datetime import UTC, datetime

import asyncpg

from tests.support.program import run

UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"


async def test_persons_are_erased_and_unknown_ids_are_named(pool: asyncpg.Pool, database_url: str) -> None:
    """Once they are gone, the command may be repeated; without a terminal it needs --yes."""
    user_id = await pool.fetchval(
        """
        INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                           schedule_from, created_at, updated_at)
        VALUES (gen_random_uuid(), 'Ada', 'Lovelace', 'ada@example.com', '1990-12-10', 'UTC', $1, $1, $1) RETURNING id
        """,
        datetime.now(UTC),
    )
    asked = await run("erase", str(user_id), DATABASE_URL=database_url)
    assert (asked.status, "use --yes" in asked.err) == (2, True)
    assert await pool.fetchval("SELECT count(*) FROM users") == 1
    done = await run("erase", str(user_id), UNKNOWN, "--yes", DATABASE_URL=database_url)
    assert (done.status, done.out) == (1, f"{user_id} erased, 0 messages cancelled, 0 may still arrive\n")
    assert f"there is no user {UNKNOWN}" in done.err
    again = await run("erase", str(user_id), "--yes", DATABASE_URL=database_url)
    assert (again.status, "was erased before" in again.out) == (0, True)
    assert await pool.fetchval("SELECT count(*) FROM users") == 0
    assert (await pool.fetchval("SELECT actor FROM changes WHERE action = 'erased'")).startswith("cli:")
