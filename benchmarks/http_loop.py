"""The limit of a worker in Python: nothing but an HTTP client that POSTs the same 80 bytes, on so many connections.

Run as ``python -m benchmarks.http_loop URL COUNT CONNECTIONS``; it prints a line before it begins.
"""

import asyncio
import sys

import uvloop
from aiohttp import ClientSession, TCPConnector

_BODY = b'{"email":"ada@example.com","message":"Hey, Ada Lovelace it\'s your birthday!!!"}'
_HEADERS = {"Content-Type": "application/json"}


async def post_all(url: str, count: int, connections: int) -> None:
    """POST ``count`` times, with ``connections`` requests in flight all the time."""
    left = iter(range(count))
    print("posting", flush=True)
    async with ClientSession(connector=TCPConnector(limit=connections)) as session:

        async def slot() -> None:
            for _ in left:
                async with session.post(url, data=_BODY, headers=_HEADERS) as response:
                    await response.read()
                    assert response.status == 200

        async with asyncio.TaskGroup() as slots:
            for _ in range(connections):
                slots.create_task(slot())


if __name__ == "__main__":
    uvloop.run(post_all(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
