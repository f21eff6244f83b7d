"""Celery: four processes, each with a connection to the service and one to the database."""

import asyncio
import os
import sys
from functools import cache

import job
import psycopg
import requests
from celery import Celery

app = Celery("peers", broker=job.QUEUE)
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=10)


@cache
def session() -> requests.Session:
    """Return the process's client."""
    return requests.Session()


@cache
def connection() -> psycopg.Connection:
    """Return the process's connection."""
    return psycopg.connect(job.DATABASE, autocommit=True)


@app.task(name="greet")
def greet(number: int) -> None:
    """Send, and mark as done."""
    session().post(job.URL, data=job.BODY, headers=job.HEADERS, timeout=10).raise_for_status()
    connection().execute("UPDATE jobs SET done_at = now() WHERE id = %s", (number,))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        most = ("--concurrency", "4", "--without-gossip", "--without-mingle", "--loglevel", "WARNING")
        os.execvp(sys.executable, (sys.executable, "-m", "celery", "-A", "with_celery", "worker", *most))  # noqa: S606
    asyncio.run(job.make_jobs(int(sys.argv[2])))
    for each in range(1, int(sys.argv[2]) + 1):
        greet.delay(each)
