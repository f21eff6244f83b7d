"""The planner: rows a second against a bare INSERT ... SELECT, and what a tick costs that has nothing to do.

With one type, and with five: every user has four dates besides the birthday.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median

import asyncpg
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import Comparison, compare, tell
from benchmarks.population import populate
from benchmarks.scale import Run, Scale
from benchmarks.targets import EMPTY_TICK, PLANNER, PLANNER_OF_TYPES
from birthday.broker.postgres import PostgresBroker
from birthday.store.sessions import set_session
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.dates import add_dates
from tests.support.postgres import PostgresServer
from tests.support.product import Product

NOON = datetime(2026, 3, 10, 12, 1, tzinfo=UTC)
"""A minute past the hour: in no zone is it 09:00 within the minutes that follow."""
MINUTES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
FEW_USERS = 10_000
SESSION = partial(set_session, serving=True)
"""What the program does with each connection. With JIT, planning would take twice as long."""
OTHER_TYPES = ("name-day", "customer-anniversary", "wedding-anniversary", "work-anniversary")


@asynccontextmanager
async def _product(database: str) -> AsyncIterator[Product]:
    async with asyncpg.create_pool(database, min_size=1, max_size=4, init=SESSION) as pool:
        yield Product(pool, PostgresBroker(pool), ManualClock(NOON), Metrics())


async def crowd(database: str, rows: int, types: Sequence[str] = ()) -> None:
    """Make users in many zones, all of whom have their birthday, and a date of each type, on one of four days."""
    connection = await asyncpg.connect(database)
    try:
        await populate(connection, rows, NOON - timedelta(days=30))
        await connection.execute(
            """
            UPDATE users SET date_of_birth =
                make_date(extract(year FROM date_of_birth)::int, 3, 9 + (hashtext(id::text) & 3))
            """
        )
        if types:
            await add_dates(connection, types, NOON - timedelta(days=30))
            await connection.execute(
                """
                UPDATE anniversaries SET date = make_date(2020, 3, 9 + (hashtext(user_id::text || message_type) & 3))
                """
            )
        await connection.execute("VACUUM FULL users")
        await connection.execute("VACUUM FULL anniversaries")
        await connection.execute("ANALYZE users, anniversaries")
    finally:
        await connection.close()


async def plan(database: str) -> float:
    """Return how many messages a second one tick plans, from nothing to the horizon."""
    async with _product(database) as product:
        await product.pool.execute("TRUNCATE message_logs, watermarks")
        started = time.perf_counter()
        planned = await product.planner.plan_once(NOON)
        return planned / (time.perf_counter() - started)


async def insert(database: str) -> float:
    """Return how many such rows a second one bare statement inserts for the same users: no zones, no checks."""
    connection = await asyncpg.connect(database)
    try:
        await SESSION(connection)
        await connection.execute("TRUNCATE message_logs")
        started = time.perf_counter()
        status = await connection.execute(
            """
            INSERT INTO message_logs (id, user_id, message_type, occasion_year, occasion_on, scheduled_at, ends_at,
                                      schedule_from, created_at, updated_at)
            SELECT gen_random_uuid(), id, 'birthday', 2026, date '2026-03-10', $1::timestamptz, $1,
                   schedule_from, $1, $1
            FROM users WHERE birth_month_day BETWEEN 309 AND 312
            UNION ALL
            SELECT gen_random_uuid(), user_id, message_type, 2026, date '2026-03-10', $1, $1,
                   schedule_from, $1, $1
            FROM anniversaries WHERE month_day BETWEEN 309 AND 312
            """,
            NOON,
        )
        return int(status.rpartition(" ")[2]) / (time.perf_counter() - started)
    finally:
        await connection.close()


def test_planner(benchmark: BenchmarkFixture, scale: Scale, run: Run, database_url: str) -> None:
    """Planning costs little more than storing the result."""
    run(crowd(database_url, scale.rows))
    compare(
        benchmark,
        Comparison(PLANNER, "rows/s"),
        lambda: run(plan(database_url)),
        lambda: run(insert(database_url)),
        scale.rounds + 1,
    )


def test_planner_of_five_types(benchmark: BenchmarkFixture, scale: Scale, run: Run, database_url: str) -> None:
    """Dates of other types cost as much as birthdays."""
    run(crowd(database_url, scale.rows // 5, OTHER_TYPES))
    compare(
        benchmark,
        Comparison(PLANNER_OF_TYPES, "rows/s"),
        lambda: run(plan(database_url)),
        lambda: run(insert(database_url)),
        scale.rounds + 1,
    )


async def prepare_ticks(database: str, users: int) -> None:
    """Make users with five dates each, and plan everything up to the horizon."""
    async with _product(database) as product:
        async with product.pool.acquire() as connection:
            await populate(connection, users, NOON - timedelta(days=30))
            await add_dates(connection, OTHER_TYPES, NOON - timedelta(days=30))
            await connection.execute("VACUUM (ANALYZE) anniversaries", timeout=None)
        await product.planner.plan_once(NOON)


async def empty_tick(database: str) -> float:
    """Return how many milliseconds a tick takes that finds nothing to plan: the median of some."""
    async with _product(database) as product:
        seconds = []
        for minute in MINUTES:
            started = time.perf_counter()
            assert await product.planner.plan_once(NOON + timedelta(minutes=minute)) == 0
            seconds.append(time.perf_counter() - started)
    return median(seconds[1:]) * 1000


def test_empty_tick(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, database_url: str, postgres_server: PostgresServer
) -> None:
    """A tick with nothing to plan costs the same, however many users and dates there are."""
    few = run(postgres_server.create_database())
    run(prepare_ticks(postgres_server.url(few), FEW_USERS))
    run(prepare_ticks(database_url, scale.users))
    tell(f"  {scale.users:,} users against {FEW_USERS:,}, with five dates each")
    compare(
        benchmark,
        Comparison(EMPTY_TICK, "ms"),
        lambda: run(_ticks_again(database_url)),
        lambda: run(_ticks_again(postgres_server.url(few))),
        2 * scale.rounds,
    )


async def _ticks_again(database: str) -> float:
    """Measure ticks from where the watermark stood at first: each round has the same ones to make."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(
            "UPDATE watermarks SET reached_at = $1 WHERE name = 'planned'", NOON + timedelta(hours=48)
        )
    finally:
        await connection.close()
    return await empty_tick(database)
