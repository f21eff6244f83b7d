"""Point-in-time recovery of a PostgreSQL of one's own, with the settings of the runbook: real WAL, a real archive."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from birthday.core.user import Profile
from birthday.embedded.cluster import Cluster
from birthday.store.migrations import load_migrations, migrate
from tests.support.postgres import postgres_programs, server_directory
from tests.support.product import PLANNING, eventually
from tests.support.runbook import RUNBOOK, read_blocks
from tests.support.users import create_user

ADA = Profile("Ada", "Lovelace", "ada@example.com", date(1990, 12, 10), "UTC")


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory for two servers and an archive, which the account that runs the servers may write to."""
    with server_directory() as directory:
        for name in ("first", "second", "archive"):
            (directory / name).mkdir()
            (directory / name).chmod(0o777)
        yield directory


def settings(beginning: str, archive: Path, **changes: str) -> str:
    """Return the runbook's block of settings that begins so, for another archive and with other values."""
    [block] = [block.text for block in read_blocks(RUNBOOK.read_text()) if block.text.startswith(beginning)]
    lines = [line.replace("/archive/", f"{archive}/") for line in block.splitlines()]
    given = dict(line.split(" = ", 1) for line in lines)
    assert set(changes) <= set(given)
    return "".join(f"{name} = {value}\n" for name, value in (given | changes).items())


def configure(cluster: Path, text: str) -> None:
    """Add settings to those of a cluster."""
    with (cluster / "postgresql.auto.conf").open("a") as file:
        file.write(text)


async def test_a_base_backup_and_the_archive_bring_back_the_last_instant_before_the_damage(place: Path) -> None:
    """Who came after the base backup is there again, the damage is not, and the database takes writes."""
    first = await Cluster.open(place / "first", postgres_programs())
    await first.start()
    await first.stop()
    configure(place / "first" / "postgres", settings("archive_mode", place / "archive"))
    await first.start()
    second = None
    try:
        connection = await asyncpg.connect(first.dsn())
        await migrate(connection, load_migrations(), datetime.now(UTC))
        async with asyncpg.create_pool(first.dsn(), min_size=1) as pool:
            now = datetime.now(UTC)
            await create_user(pool, UUID(int=1), ADA, now, PLANNING)
            await asyncio.to_thread(_base_backup, first, place)
            await create_user(pool, UUID(int=2), replace(ADA, email="bo@example.com"), now, PLANNING)
        before = await connection.fetchval("SELECT clock_timestamp()::text")
        await connection.execute("DELETE FROM users")
        last = await connection.fetchval("SELECT pg_walfile_name(pg_switch_wal())")

        async def is_archived() -> bool:
            return (place / "archive" / str(last)).exists()

        await eventually(is_archived, f"{last} is archived", 60)
        await connection.close()
        await first.stop()

        data = place / "second" / "postgres"
        configure(data, settings("restore_command", place / "archive", recovery_target_time=f"'{before}'"))
        (data / "recovery.signal").touch()
        second = await Cluster.open(place / "second", postgres_programs())
        await second.start()
        connection = await asyncpg.connect(second.dsn())

        async def takes_writes() -> bool:
            return await connection.fetchval("SELECT pg_is_in_recovery()") is False

        await eventually(takes_writes, "the recovery has come to its end", 60)
        assert [row["id"].int for row in await connection.fetch("SELECT id FROM users ORDER BY id")] == [1, 2]
        await connection.execute("UPDATE users SET first_name = 'Augusta'")
        await connection.close()
    finally:
        await first.stop()
        if second is not None:
            await second.stop()


def _base_backup(first: Cluster, place: Path) -> None:
    """Take the base backup as the runbook does, as data of the second server."""
    data = place / "second" / "postgres"
    program = str(postgres_programs() / "pg_basebackup")
    options = [f"--pgdata={data}", "--checkpoint=fast", "--wal-method=stream", f"--dbname={first.dsn('postgres')}"]
    subprocess.run([program, *options], check=True, capture_output=True, text=True)
    owner = (place / "first" / "postgres").stat()
    if owner.st_uid != os.geteuid():
        for path in (data, *data.rglob("*")):
            shutil.chown(path, owner.st_uid, owner.st_gid)
