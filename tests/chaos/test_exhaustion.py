"""The pool of connections is used up, by load and by a lock: whoever waits is told so, and nothing is stuck after."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from itertools import count

import aiohttp

from tests.support.chaos import FULL, Crowd, Receiver, brokers, fleet
from tests.support.message_service import MessageService

CLIENTS = 64
SECONDS = 20 if FULL else 7


@brokers("postgres")
async def test_an_exhausted_pool_refuses_requests_and_recovers(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """Four connections for all roles, many clients, and a table that is locked for a while.

    A request is answered with 201 or 503, and no other way; who was created is greeted.
    """
    receiver = Receiver()
    settings = {"DATABASE_POOL_MIN": "2", "DATABASE_POOL_MAX": "4"}
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, **settings) as processes,
    ):
        program = await processes.start("api,scheduler,worker")
        await crowd.gather(500)
        before, locked, after = Counter[int](), Counter[int](), Counter[int]()
        await post_users(f"{program.url}/users", before, 3)
        async with crowd.connection() as connection, connection.transaction():
            await connection.execute("LOCK TABLE users, message_logs IN ACCESS EXCLUSIVE MODE")
            await post_users(f"{program.url}/users", locked, SECONDS)
        await processes.wait_for_ready(200, 60)
        await post_users(f"{program.url}/users", after, 3)
        await crowd.wait_until_settled(60)
        audit = await crowd.audit(receiver)
        assert program.process.returncode is None
    assert set(before) == set(after) == {201}
    assert set(locked) <= {201, 503}
    assert locked[503] >= CLIENTS
    audit.verify()


async def post_users(url: str, answers: Counter[int], seconds: float) -> None:
    """Create users whose birthday is today, with many clients for so long, and count the answers by their status."""
    numbers = count()
    over = asyncio.get_running_loop().time() + seconds

    async def post(session: aiohttp.ClientSession) -> None:
        while asyncio.get_running_loop().time() < over:
            user = {
                "firstName": "Ada",
                "lastName": "Lovelace",
                "email": f"ada-{id(answers)}-{next(numbers)}@example.com",
                "dateOfBirth": f"1992-{datetime.now(UTC):%m-%d}",
                "timezone": "UTC",
            }
            async with session.post(url, json=user) as response:
                answers[response.status] += 1

    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        await asyncio.gather(*(post(session) for _ in range(CLIENTS)))
