"""The job that every peer does: POST the same 80 bytes, and mark the job as done where its queue does not do so."""

import os

import asyncpg
from aiohttp import ClientSession, TCPConnector

CONCURRENCY = 100
BODY = b'{"email":"ada@example.com","message":"Hey, Ada Lovelace it\'s your birthday!!!"}'
HEADERS = {"Content-Type": "application/json"}
DATABASE = os.environ["DATABASE_URL"]
QUEUE = os.environ.get("RABBITMQ_URL", "")
URL = os.environ["MESSAGE_SERVICE_URL"] + "/send"
DONE = "UPDATE jobs SET done_at = now() WHERE id = $1"


def open_session() -> ClientSession:
    """Return a client that keeps as many connections as jobs are done at a time."""
    return ClientSession(connector=TCPConnector(limit=CONCURRENCY))


async def post(session: ClientSession) -> None:
    """Send."""
    async with session.post(URL, data=BODY, headers=HEADERS) as response:
        await response.read()
        response.raise_for_status()


async def make_jobs(count: int) -> None:
    """Make the rows that are marked as done."""
    connection = await asyncpg.connect(DATABASE)
    await connection.execute("DROP TABLE IF EXISTS jobs; CREATE TABLE jobs (id int PRIMARY KEY, done_at timestamptz)")
    await connection.execute("INSERT INTO jobs (id) SELECT generate_series(1, $1::int)", count)
    await connection.close()
