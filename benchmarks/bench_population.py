"""What grows with the number of users, and what does not: storage, ticks, pages, retention."""

import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from uuid import UUID

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import tell
from benchmarks.population import populate
from benchmarks.processes import birthday, fetch
from benchmarks.scale import Run
from birthday.broker.postgres import PostgresBroker
from birthday.http.cursors import user_cursor
from birthday.store.upkeep import remove_old
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.product import Product

ORDINARY = datetime(2026, 3, 10, 12, 1, tzinfo=UTC)
NEW_YEAR = datetime(2026, 12, 31, 12, 1, tzinfo=UTC)
PAGE = 100


@asynccontextmanager
async def _product(database: str) -> AsyncIterator[Product]:
    async with asyncpg.create_pool(database, min_size=1, max_size=4, command_timeout=600) as pool:
        yield Product(pool, PostgresBroker(pool), ManualClock(ORDINARY), Metrics())


async def seconds_of(work: Awaitable[object]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def tick(product: Product, now: datetime) -> dict[str, float]:
    """Return what it takes to plan a whole horizon from nothing, and then to find nothing to do."""
    await product.pool.execute("TRUNCATE message_logs, watermarks")
    started = time.perf_counter()
    planned = await product.planner.plan_once(now)
    seconds = time.perf_counter() - started
    empty = [await seconds_of(product.planner.plan_once(now + timedelta(minutes=minute))) for minute in range(1, 11)]
    return {"planned": planned, "seconds": seconds, "empty_ms": 1000 * median(empty)}


async def pages(product: Product, database: str) -> dict[str, float]:
    """Return how many milliseconds ``GET /users`` takes at the start, in the middle and at the end."""
    ends = [
        await product.pool.fetchval("SELECT id FROM users ORDER BY id LIMIT 1"),
        await product.pool.fetchval("SELECT id FROM users ORDER BY id DESC LIMIT 1"),
    ]
    first, last = (int(UUID(bytes=end.bytes)) for end in ends)
    depths = {"first": first, "middle": (first + last) // 2, "last": last - (last - first) // 1000}
    with birthday("api", DATABASE_URL=database) as program:
        return {
            depth: 1000 * median(page_seconds(program.url, UUID(int=after)) for _ in range(20))
            for depth, after in depths.items()
        }


def page_seconds(url: str, after: UUID) -> float:
    """Return how long the page of users after an id takes."""
    started = time.perf_counter()
    fetch(f"{url}/users?limit={PAGE}&cursor={user_cursor(after)}")
    return time.perf_counter() - started


async def sizes(product: Product) -> dict[str, int]:
    """Return how many bytes each table and index takes."""
    rows = await product.pool.fetch(
        """
        SELECT c.relname, pg_relation_size(c.oid) AS bytes
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'i') AND pg_relation_size(c.oid) > 100000
        ORDER BY 2 DESC
        """
    )
    return {row["relname"]: row["bytes"] for row in rows}


async def retention(product: Product) -> float:
    """Return how many old messages a second are removed, in the janitor's batches."""
    await product.pool.execute("UPDATE message_logs SET status = 'delivered'")
    await product.pool.execute("VACUUM (ANALYZE) message_logs")
    removed, started = 0, time.perf_counter()
    while removed < 20_000 and (batch := await remove_old(product.pool, NEW_YEAR + timedelta(days=9), 1000)):
        removed += batch
    seconds = time.perf_counter() - started
    # The trigger has kept the years of these; what is measured next begins without any.
    await product.pool.execute("UPDATE users SET greeted_year = 0 WHERE greeted_year <> 0")
    return removed / seconds


async def grow(database: str, users: int) -> list[dict[str, object]]:
    """Add users up to a number, and measure everything at each tenth of it, hundredth and so on."""
    steps = [users // 100, users // 10, users // 2, users]
    measured: list[dict[str, object]] = []
    there = 0
    async with _product(database) as product:
        for step in steps:
            async with product.pool.acquire() as connection:
                added_at = ORDINARY - timedelta(days=300) + timedelta(minutes=there // 100_000)
                copying = await seconds_of(populate(connection, step - there, added_at, seed=step))
            figures = {
                "users": step,
                "copied_per_second": (step - there) / copying,
                "ordinary": await tick(product, ORDINARY),
                "new_year": await tick(product, NEW_YEAR),
                "pages_ms": await pages(product, database),
                "bytes": await sizes(product),
                "removed_per_second": await retention(product),
            }
            there = step
            measured.append(figures)
            tell(f"  {step:,} users: {figures['ordinary']}, New Year {figures['new_year']}, {figures['pages_ms']}")
    return measured


@pytest.mark.full
def test_population(benchmark: BenchmarkFixture, request: pytest.FixtureRequest, run: Run, database_url: str) -> None:
    """A tick costs what its birthdays cost, and a page costs the same at any depth."""
    users = request.config.getoption("--users")
    steps = benchmark.pedantic(lambda: run(grow(database_url, users)), rounds=1)
    benchmark.extra_info["steps"] = steps
