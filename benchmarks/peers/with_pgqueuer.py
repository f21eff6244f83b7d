"""pgqueuer: jobs in PostgreSQL, a hundred at a time in one process."""

import sys

import asyncpg
import job
import uvloop
from pgqueuer import AsyncpgPoolDriver, Job, PgQueuer, Queries


async def enqueue(count: int) -> None:
    """Fill the queue; the first time, make it."""
    async with asyncpg.create_pool(job.DATABASE) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        if await pool.fetchval("SELECT to_regclass('pgqueuer') IS NULL"):
            await queries.install()
        await queries.enqueue(["greet"] * count, [b"1"] * count, [0] * count)


async def work() -> None:
    """Work until killed."""
    async with asyncpg.create_pool(job.DATABASE, min_size=2, max_size=20) as pool, job.open_session() as session:
        queue = PgQueuer(AsyncpgPoolDriver(pool))

        @queue.entrypoint("greet")
        async def greet(_job: Job) -> None:
            await job.post(session)

        await queue.run(batch_size=job.CONCURRENCY)


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[1] == "work" else enqueue(int(sys.argv[2])))
