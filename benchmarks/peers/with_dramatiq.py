"""Dramatiq: two processes of eight threads."""

import asyncio
import os
import sys
import threading

import dramatiq
import job
import psycopg
import requests
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url=job.QUEUE)
dramatiq.set_broker(broker)
of_thread = threading.local()


@dramatiq.actor
def greet(number: int) -> None:
    """Send, and mark as done."""
    if not hasattr(of_thread, "session"):
        of_thread.session = requests.Session()
        of_thread.connection = psycopg.connect(job.DATABASE, autocommit=True)
    of_thread.session.post(job.URL, data=job.BODY, headers=job.HEADERS, timeout=10).raise_for_status()
    of_thread.connection.execute("UPDATE jobs SET done_at = now() WHERE id = %s", (number,))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        most = ("--processes", "2", "--threads", "8")
        os.execvp(sys.executable, (sys.executable, "-m", "dramatiq", "with_dramatiq", *most))  # noqa: S606
    asyncio.run(job.make_jobs(int(sys.argv[2])))
    for each in range(1, int(sys.argv[2]) + 1):
        greet.send(each)
