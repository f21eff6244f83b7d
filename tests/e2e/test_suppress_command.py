"""``birthday suppress`` from outside."""

import json
from datetime import UTC, datetime

import asyncpg

from tests.support.program import run


async def test_addresses_are_added_listed_and_removed(pool: asyncpg.Pool, database_url: str) -> None:
    """From arguments and standard input; the list tells who and why, and no address; what is wrong is named."""
    await pool.execute(
        """
        INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                           schedule_from, created_at, updated_at)
        VALUES (gen_random_uuid(), 'Ada', 'Lovelace', 'ada@example.com', '1990-12-10', 'UTC', $1, $1, $1)
        """,
        datetime.now(UTC),
    )
    rows = "ADA@example.com\n\nnot an address\nbob@example.com\n"
    add = ("suppress", "add", "eve@example.com", "--file", "-", "--reason", "asked by phone")
    tried = await run(*add, "--dry-run", stdin=rows, DATABASE_URL=database_url)
    assert tried.out == "dry run: 3 addresses added, 1 users suppressed, 0 messages cancelled\n"
    assert await pool.fetchval("SELECT count(*) FROM suppressions") == 0
    added = await run(*add, stdin=rows, DATABASE_URL=database_url)
    assert (added.status, added.out) == (1, tried.out.removeprefix("dry run: "))
    assert "line 3 is not an e-mail address: it has no @" in added.err
    listed = await run("suppress", "list", DATABASE_URL=database_url)
    lines = listed.out.splitlines()
    assert len(lines) == 3
    assert all(line.endswith("  asked by phone") for line in lines)
    objects = await run("suppress", "list", "--json", DATABASE_URL=database_url)
    hashes = {json.loads(line)["addressHash"] for line in objects.out.splitlines()}
    assert hashes == {line.split()[1] for line in lines}
    assert "example.com" not in listed.out + objects.out
    removed = await run("suppress", "remove", "ada@example.com", "zoe@example.com", DATABASE_URL=database_url)
    assert removed.out == "1 addresses removed, 1 users greeted again, 0 messages scheduled again\n"
    assert removed.status == 0
    assert not await pool.fetchval("SELECT suppressed FROM users")


async def test_a_command_without_addresses_says_what_it_takes(database_url: str) -> None:
    """Nothing is done by mistake, and a reason is one line."""
    nothing = await run("suppress", "add", DATABASE_URL=database_url)
    assert nothing.status == 2
    assert "give them as arguments, or a file with --file" in nothing.err
    empty = await run("suppress", "add", "ada@example.com", "--reason", " ", DATABASE_URL=database_url)
    assert empty.status == 2
    assert "one line of text is accepted" in empty.err
