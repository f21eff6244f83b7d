"""A deployment of the API under load: several processes share one port, and are replaced in turn."""

import asyncio
import signal
from collections import Counter

import aiohttp

from tests.support.chaos import let_fault_last
from tests.support.program import Program, running


async def test_no_request_is_lost_while_processes_are_replaced(database_url: str) -> None:
    """New clients and clients that keep their connection alike: every POST is answered 201."""
    answers: Counter[str] = Counter()
    finished = asyncio.Event()
    async with running("--role", "api", DATABASE_URL=database_url) as first:
        port = first.url.rpartition(":")[2]
        clients = [
            asyncio.create_task(post_users(first.url, number, answers, finished, keep_alive=number % 2 == 0))
            for number in range(16)
        ]
        for _ in range(3):
            async with running("--role", "api", DATABASE_URL=database_url, PORT=port) as newcomer:
                await let_fault_last(1)
                await leave(newcomer)
                await let_fault_last(0.5)
        finished.set()
        await asyncio.gather(*clients)
    assert set(answers) == {"201"}, answers
    assert answers["201"] > 100


async def leave(program: Program) -> None:
    """End a process as a deployment does."""
    assert await program.stop(signal.SIGTERM) == 0


async def post_users(
    url: str, client: int, answers: Counter[str], finished: asyncio.Event, *, keep_alive: bool
) -> None:
    """Create users until told to stop, and count what comes of each request."""
    connector = aiohttp.TCPConnector(force_close=not keep_alive)
    async with aiohttp.ClientSession(connector=connector) as session:
        number = 0
        while not finished.is_set():
            number += 1
            user = {
                "firstName": "Ada",
                "lastName": "Lovelace",
                "email": f"ada-{client}-{number}@example.com",
                "dateOfBirth": "1990-06-01",
                "timezone": "UTC",
            }
            try:
                async with session.post(f"{url}/users", json=user) as response:
                    await response.read()
                    answers[str(response.status)] += 1
            except aiohttp.ClientError as error:
                answers[type(error).__name__] += 1
            await let_fault_last(0.005)
