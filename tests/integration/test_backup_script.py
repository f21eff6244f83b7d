"""``scripts/backup-database.sh``: a backup that can be read, or none, and a status that tells which."""

import asyncio
import os
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from tests.support.postgres import postgres_programs

SCRIPT = Path(__file__).parents[2] / "scripts" / "backup-database.sh"
LONG_AGO = 1_600_000_000


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of a run."""

    status: int | None
    out: str
    err: str


async def backup(directory: Path, *path: Path, **environment: str) -> Finished:
    """Run the script with PostgreSQL's programs, and those in ``path`` in front of them."""
    programs = os.pathsep.join([*map(str, path), str(postgres_programs()), os.environ["PATH"]])
    process = await asyncio.create_subprocess_exec(
        SCRIPT, directory, env=environment | {"PATH": programs}, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    return Finished(process.returncode, out.decode(), err.decode())


def files(directory: Path) -> dict[str, int]:
    """Return the files of a directory, with what others than their owner may do."""
    return {file.name: file.stat().st_mode & 0o077 for file in directory.iterdir()}


async def test_a_backup_is_whole_and_private_and_replaces_old_ones(
    database_url: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """It has all tables; of what is there already, only backups that are older than KEEP_DAYS go."""
    kept, old, others = (
        tmp_path / name for name in ("birthday_scheduler_1.dump", "birthday_scheduler_0.dump", "a.dump")
    )
    for file in (kept, old, others):
        file.touch()
    for file in (old, others):
        os.utime(file, (LONG_AGO, LONG_AGO))
    finished = await backup(tmp_path, DATABASE_URL=database_url, KEEP_DAYS="7")
    assert finished.status == 0, finished.err
    made = Path(finished.out.strip())
    assert set(files(tmp_path)) == {kept.name, others.name, made.name}
    assert files(tmp_path)[made.name] == 0
    listing = await asyncio.create_subprocess_exec(postgres_programs() / "pg_restore", "--list", made, stdout=PIPE)
    contents, _ = await listing.communicate()
    for row in await pool.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ):
        assert f"TABLE DATA public {row['relname']} " in contents.decode()


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/nowhere", "postgresql://%2Fnowhere/birthday_scheduler"])
async def test_a_backup_that_fails_says_so_and_leaves_nothing(tmp_path: Path, url: str) -> None:
    """No file that somebody could take for a backup, and none of the old ones removed."""
    old = tmp_path / "birthday_scheduler_0.dump"
    old.touch()
    os.utime(old, (LONG_AGO, LONG_AGO))
    finished = await backup(tmp_path, DATABASE_URL=url)
    assert finished.status != 0
    assert "pg_dump: error" in finished.err
    assert set(files(tmp_path)) == {old.name}


async def test_a_database_without_the_tables_is_no_backup(
    database_url: str, pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """Somebody pointed it at the wrong database."""
    await pool.execute("DROP TABLE users CASCADE")
    finished = await backup(tmp_path, DATABASE_URL=database_url)
    assert (finished.status, "lacks users" in finished.err) == (1, True)
    assert files(tmp_path) == {}


async def test_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    """pg_dump gets it from its environment, decoded; a program in its place writes down what it was given."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "pg_dump").write_text('#!/bin/sh\nprintf "%s\\n" "$*" "$PGPASSWORD" >&2\nexit 1\n')
    (programs / "pg_dump").chmod(0o755)
    url = "postgresql://birthday:p%40ss%25w\\o%2Frd@db.example.com:5433/birthday_scheduler?sslmode=require"
    finished = await backup(tmp_path, programs, DATABASE_URL=url)
    arguments, password = finished.err.splitlines()
    assert finished.status == 1
    assert password == "p@ss%w\\o/rd"
    assert "p%40ss" not in arguments
    assert "--dbname=postgresql://birthday@db.example.com:5433/birthday_scheduler?sslmode=require" in arguments
