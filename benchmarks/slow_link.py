"""A link to PostgreSQL on which a statement takes longer, as it does when each commit waits for a slow disk.

Run as ``python -m benchmarks.slow_link DATABASE_URL SECONDS``; it prints the URL of the database at its other end.
"""

import asyncio
import sys
from datetime import timedelta

import uvloop

from tests.support.proxy import network


async def serve(database: str, seconds: float) -> None:
    """Forward until killed; there and back again, data takes so much longer."""
    async with network(database, None, "http://127.0.0.1:9") as link:
        link.database.delay = timedelta(seconds=seconds / 2)
        print(link.settings["DATABASE_URL"], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], float(sys.argv[2])))
