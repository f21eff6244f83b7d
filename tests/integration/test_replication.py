"""Whether commits wait for a replica is seen and told. A real stream of the log stands for a replica."""

import asyncio
import os
import secrets
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from birthday.operations.figures import watch_database
from birthday.store.statistics import Replication, read_replication
from birthday.telemetry.metrics import Metrics
from tests.support.api import running_api
from tests.support.clock import ManualClock
from tests.support.postgres import postgres_programs
from tests.support.product import eventually
from tests.support.program import run


@asynccontextmanager
async def receiving(database_url: str, directory: Path, name: str, pool: asyncpg.Pool) -> AsyncIterator[None]:
    """Receive the server's log under this application name, as a replica does."""
    process = await asyncio.create_subprocess_exec(
        *(str(postgres_programs() / "pg_receivewal"), f"--dbname={database_url}", f"--directory={directory}"),
        env={"PATH": os.environ["PATH"], "PGAPPNAME": name},
        stdout=DEVNULL,
        stderr=DEVNULL,
    )

    async def streams(*, wanted: bool) -> bool:
        found = await pool.fetch("SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
        return ([row[0] for row in found] == [name]) is wanted

    try:
        await eventually(lambda: streams(wanted=True), f"{name} receives the log")
        yield
    finally:
        process.terminate()
        await process.wait()
        await eventually(lambda: streams(wanted=False), f"{name} is gone")


async def replication(pool: asyncpg.Pool) -> Replication:
    """Read it on any connection."""
    async with pool.acquire() as connection:
        return await read_replication(connection)


async def test_a_replica_that_no_commit_waits_for_is_told_everywhere(
    pool: asyncpg.Pool, database_url: str, tmp_path: Path
) -> None:
    """By /health/detailed, the metric, and check, which says what to do."""
    metrics, clock = Metrics(), ManualClock()

    def shown() -> float | None:
        return metrics.registry.get_sample_value("birthday_scheduler_db_replication_asynchronous")

    async def is_shown() -> bool:
        return shown() == 1

    async with running_api(pool) as api:
        assert (await api.get("/health/detailed")).json["replication"] == "none"
        async with receiving(database_url, tmp_path, "replica_1", pool):
            health = await api.get("/health/detailed")
            assert (health.json["replication"], health.json["status"]) == ("asynchronous", "healthy")
            watching = asyncio.create_task(watch_database(pool, metrics, clock))
            await eventually(is_shown, "the metric is set")
            watching.cancel()
            await asyncio.wait({watching})
            checked = await run("check", DATABASE_URL=database_url, CHANNEL="console")
    assert checked.status == 0
    [line] = [line for line in checked.out.splitlines() if line.startswith("replicas ")]
    assert "commits do not wait" in line
    assert "synchronous_standby_names" in line


async def test_commits_that_wait_are_synchronous(pool: asyncpg.Pool, database_url: str, tmp_path: Path) -> None:
    """By the server's settings, unless the session does not wait."""
    async with receiving(database_url, tmp_path, "replica_1", pool):
        try:
            await pool.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await pool.execute("SELECT pg_reload_conf()")

            async def waits() -> bool:
                return await replication(pool) is Replication.SYNCHRONOUS

            await eventually(waits, "the setting is in force")
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = local")
                assert await read_replication(connection) is Replication.ASYNCHRONOUS
        finally:
            await pool.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await pool.execute("SELECT pg_reload_conf()")


async def test_a_backup_is_no_replica_and_what_is_hidden_is_unknown(
    pool: asyncpg.Pool, database_url: str, tmp_path: Path
) -> None:
    """A role without pg_monitor cannot tell a replica from a backup. Without either, it knows that there is none."""
    role = f"ordinary_{secrets.token_hex(4)}"
    await pool.execute(f"CREATE ROLE {role}")
    async with asyncpg.create_pool(database_url, min_size=1, server_settings={"role": role}) as theirs:
        assert await replication(theirs) is Replication.NONE
        async with receiving(database_url, tmp_path, "pg_receivewal", pool):
            assert await replication(pool) is Replication.NONE
            assert await replication(theirs) is Replication.UNKNOWN
            await pool.execute(f"GRANT pg_monitor TO {role}")
            assert await replication(theirs) is Replication.NONE
    await pool.execute(f"DROP ROLE {role}")
