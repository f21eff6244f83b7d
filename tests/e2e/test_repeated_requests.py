"""Creating users while a process is killed: each client repeats its request until it is answered; there is one user."""

import asyncio
import signal
from dataclasses import dataclass, field

import aiohttp
import asyncpg

from tests.support.program import running

CLIENTS = 20
EACH = 20


@dataclass
class Clients:
    """Clients that send each request with its key until it is answered, and then once more, to processes in turn."""

    urls: list[str]
    answers: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    lost: int = 0

    async def create_many(self, session: aiohttp.ClientSession, client: int) -> None:
        """Create users one after the other."""
        for number in range(EACH):
            key = f"{client}-{number}"
            while len(self.answers.setdefault(key, [])) < 2:
                await self._ask(session, key)

    async def _ask(self, session: aiohttp.ClientSession, key: str) -> None:
        self.urls.append(self.urls.pop(0))
        body = {"firstName": "Ada", "lastName": "", "email": f"ada{key}@example.com", "dateOfBirth": "1992-12-10"}
        headers = {"Idempotency-Key": key}
        try:
            async with session.post(
                f"{self.urls[0]}/users", json=body | {"timezone": "UTC"}, headers=headers
            ) as response:
                self.answers[key].append((response.status, await response.read()))
        except aiohttp.ClientError:
            self.lost += 1


async def test_whoever_repeats_a_request_until_it_is_answered_has_one_user(database_url: str) -> None:
    """Of two processes one is killed with -9 in the middle; all answers to one key are equal, and name its one user."""
    connection = await asyncpg.connect(database_url)
    async with (
        running("--role", "api", DATABASE_URL=database_url) as staying,
        running("--role", "api", DATABASE_URL=database_url) as dying,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
        asyncio.timeout(60),
    ):
        clients = Clients([staying.url, dying.url])
        asking = asyncio.gather(*(clients.create_many(session, client) for client in range(CLIENTS)))
        while await connection.fetchval("SELECT count(*) FROM users") < CLIENTS * 3:
            await asyncio.sleep(0.01)
        await dying.stop(signal.SIGKILL)
        clients.urls.remove(dying.url)
        await asking
    ids = {str(row["id"]) for row in await connection.fetch("SELECT id FROM users")}
    await connection.close()
    assert clients.lost > 0
    assert len(ids) == CLIENTS * EACH
    assert all(len(set(answers)) == 1 and answers[0][0] == 201 for answers in clients.answers.values())
    assert {answers[0][1].decode().split('"')[3] for answers in clients.answers.values()} == ids
