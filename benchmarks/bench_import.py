"""An import against COPY: parsing, validation, planning and reporting, and nothing but the same rows stored."""

import time
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

import asyncpg
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import Comparison, compare
from benchmarks.scale import Run, Scale
from benchmarks.targets import IMPORT
from birthday.clock import SystemClock
from birthday.core.user import Profile
from birthday.operations.transfer.importing import BATCH_ROWS, import_users
from tests.support.product import PLANNING
from tests.support.users import TESTER, make_profiles, write_csv


async def import_file(database: str, path: Path, rows: int) -> float:
    """Return how many rows of a CSV file a second the import makes users of."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("TRUNCATE users, anniversaries, message_logs")
        started = time.perf_counter()
        with FileIO(path) as source:
            summary = await import_users(
                source, connection, SystemClock(), PLANNING, TESTER, lambda _: None, lambda _summary, _bytes: None
            )
        seconds = time.perf_counter() - started
        assert summary.created == rows
    finally:
        await connection.close()
    return rows / seconds


async def copy_rows(database: str, profiles: list[Profile]) -> float:
    """Return how many of the same rows, parsed already, a second go in by COPY to a stage and INSERT from there."""
    rows = [(one.first_name, one.last_name, one.email, one.date_of_birth, one.zone) for one in profiles]
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("TRUNCATE users, anniversaries, message_logs")
        await connection.execute(
            """
            CREATE TEMPORARY TABLE stage (first_name text, last_name text, email text, date_of_birth date,
                                          timezone text) ON COMMIT DELETE ROWS
            """
        )
        now = datetime.now(UTC)
        started = time.perf_counter()
        for start in range(0, len(rows), BATCH_ROWS):
            async with connection.transaction():
                await connection.copy_records_to_table("stage", records=rows[start : start + BATCH_ROWS])
                await connection.execute(
                    """
                    INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                                       schedule_from, created_at, updated_at)
                    SELECT uuid_v7($1), first_name, last_name, email, date_of_birth, timezone, $1, $1, $1 FROM stage
                    ON CONFLICT (lower(email)) WHERE deleted_at IS NULL DO NOTHING
                    """,
                    now,
                )
        seconds = time.perf_counter() - started
    finally:
        await connection.close()
    return len(rows) / seconds


def test_import(benchmark: BenchmarkFixture, scale: Scale, run: Run, database_url: str, tmp_path: Path) -> None:
    """An import costs little more than storing its rows."""
    rows = scale.rows // 2
    profiles = list(make_profiles(rows))
    path = write_csv(tmp_path / "users.csv", profiles)
    compare(
        benchmark,
        Comparison(IMPORT, "rows/s"),
        lambda: run(import_file(database_url, path, rows)),
        lambda: run(copy_rows(database_url, profiles)),
        scale.rounds,
    )
