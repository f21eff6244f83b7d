"""procrastinate: jobs in PostgreSQL, a hundred at a time in one process."""

import asyncio
import sys
from typing import Any

import job
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=job.DATABASE, min_size=2, max_size=20))
held: dict[str, Any] = {}


@app.task(name="greet")
async def greet(number: int) -> None:  # noqa: ARG001 - what a job carries
    """Send; the queue marks it as done."""
    await job.post(held["session"])


async def enqueue(count: int) -> None:
    """Fill the queue; the first time, make it."""
    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        await greet.batch_defer_async(*({"number": number} for number in range(count)))


async def work() -> None:
    """Work until killed."""
    async with app.open_async(), job.open_session() as held["session"]:
        await app.run_worker_async(concurrency=job.CONCURRENCY)


if __name__ == "__main__":
    asyncio.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[2])))
