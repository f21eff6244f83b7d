"""Whether the database can be used: it answers, may be written to, and confirms a write."""

import asyncio
from typing import Final

import asyncpg

from birthday.errors import UnavailableError
from birthday.store.connection import borrow, check_database

EVERY_SECONDS: Final = 5.0
"""How long a confirmed write counts, because checks come more often, and the writes of many processes add up."""
PATIENCE_SECONDS: Final = 1.5

# The statements are sent as one message, so they are one transaction. The query has more rows than fit into its memory,
# so it writes a temporary file, and fails if the disk is full. pg_logical_emit_message writes to the WAL but to no
# table, so the commit waits for the disk and for synchronous standbys, like the commit of a real write.
_WRITE: Final = """
    SET LOCAL work_mem = '64kB';
    SELECT count(*) FROM generate_series(1, 8192);
    SELECT pg_logical_emit_message(true, 'birthday', 'probe')
"""


class DatabaseCheck:
    """A check for one pool. It raises ``UnavailableError`` if the database cannot be used; the text says why."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._written_at = float("-inf")

    async def __call__(self) -> None:
        """Ask the database whether it can be written to. Every few seconds, and after a failure, also write."""
        await check_database(self._pool)
        now = asyncio.get_running_loop().time()
        if now - self._written_at < EVERY_SECONDS:
            return
        await self._write()
        self._written_at = now

    async def _write(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), borrow(self._pool) as connection:
                await connection.execute(_WRITE)
        except TimeoutError:
            raise UnavailableError(
                "database",
                f"the database has not confirmed a write within {PATIENCE_SECONDS:g} s: is a disk slow, or a "
                "synchronous standby away?",
            ) from None
        except (asyncpg.InsufficientPrivilegeError, asyncpg.ConfigurationLimitExceededError):
            # An administrator has restricted this role, but its tables may still be writable.
            return
