"""taskiq on aio-pika: one process, a hundred tasks at a time."""

import asyncio
import os
import sys
from typing import Any

import asyncpg
import job
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker

broker = AioPikaBroker(job.QUEUE, qos=job.CONCURRENCY)
held: dict[str, Any] = {}


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(_state: TaskiqState) -> None:
    """Open what the jobs share."""
    held["session"] = job.open_session()
    held["pool"] = await asyncpg.create_pool(job.DATABASE, min_size=2, max_size=20)


@broker.task
async def greet(number: int) -> None:
    """Send, and mark as done."""
    await job.post(held["session"])
    await held["pool"].execute(job.DONE, number)


async def enqueue(count: int) -> None:
    """Fill the queue."""
    await job.make_jobs(count)
    await broker.startup()
    for start_at in range(1, count + 1, 100):
        await asyncio.gather(*(greet.kiq(number) for number in range(start_at, min(start_at + 100, count + 1))))
    await broker.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        most = ("--workers", "1", "--max-async-tasks", str(job.CONCURRENCY), "--log-level", "WARNING")
        os.execvp(sys.executable, (sys.executable, "-m", "taskiq", "worker", "with_taskiq:broker", *most))  # noqa: S606
    asyncio.run(enqueue(int(sys.argv[2])))
