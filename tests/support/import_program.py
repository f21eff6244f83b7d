"""Imports one file in a process of its own: ``python -m tests.support.import_program DATABASE_URL FILE``.

Prints what came of it, and the most memory that the process ever held, as one JSON object.
"""

import asyncio
import json
import resource
import sys
from dataclasses import asdict
from datetime import timedelta

import asyncpg
import uvloop

from birthday.cli.transfer import import_file
from birthday.clock import SystemClock
from birthday.core.occasion import Rules
from birthday.store.connection import borrow
from birthday.store.users import Planning


async def _import(database_url: str, name: str) -> None:
    planning = Planning(Rules(), timedelta(hours=48))
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool, borrow(pool, None) as connection:
        summary = await import_file(name, connection, SystemClock(), planning, sys.stderr)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    sys.stdout.write(json.dumps(asdict(summary) | {"peak_bytes": peak_bytes}))


if __name__ == "__main__":
    try:
        uvloop.run(_import(sys.argv[1], sys.argv[2]))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
