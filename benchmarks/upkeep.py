"""What runs beside a worker until it is ended: ``python -m benchmarks.upkeep remove|vacuum postgresql://...``.

``remove`` is the janitor's retention, on the day on which half of the past is too old. ``vacuum`` reads all of
``message_logs`` and its indexes, over and over, no faster than autovacuum does by default.
"""

import asyncio
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg

from benchmarks.past import LENGTH
from birthday.broker.postgres import PostgresBroker
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.product import Product


async def remove(pool: asyncpg.Pool) -> None:
    """Remove what is old, as the role scheduler does at CRON_RETENTION."""
    now = datetime.now(UTC) + LENGTH / 2
    janitor = Product(pool, PostgresBroker(pool), ManualClock(now), Metrics()).janitor
    await janitor.retire_once(now)


async def vacuum(pool: asyncpg.Pool) -> None:
    """Vacuum as autovacuum does, indexes included."""
    async with pool.acquire() as connection:
        await connection.execute("SET vacuum_cost_delay = '2ms'")
        while True:
            await connection.execute("VACUUM (INDEX_CLEANUP ON) message_logs", timeout=None)


async def _main(job: str, database: str) -> None:
    task = asyncio.current_task()
    assert task
    # Cancelled, a statement ends in the server as well.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with suppress(asyncio.CancelledError):
        async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
            print(job, flush=True)
            await {"remove": remove, "vacuum": vacuum}[job](pool)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
