"""The lock under which migration runners take turns: an advisory lock of PostgreSQL.

PostgreSQL releases it when the session that holds it ends, however it ends. Behind a pooler that hands connections out
by transaction there are no sessions. There a transaction of another connection, ``keeper``, holds the lock.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from birthday.errors import MigrationError
from birthday.store.connection import Connection

LOCK_SECONDS: Final = 60.0
"""How long a runner waits for another one, unless it is told otherwise."""

_ASK_SECONDS: Final = 0.2
_LOCK_KEY: Final = int.from_bytes(b"birthday")


@asynccontextmanager
async def locked(connection: Connection, keeper: Connection | None, patience: float) -> AsyncIterator[None]:
    """Hold the lock until the context ends.

    Raises:
        MigrationError: if another runner holds the lock for more than ``patience`` seconds.
    """
    if keeper is not None:
        async with AsyncExitStack() as holding:
            await _wait_for_turn(partial(_try_in_transaction, keeper, holding), patience)
            yield
        return
    await _wait_for_turn(partial(connection.fetchval, "SELECT pg_try_advisory_lock($1)", _LOCK_KEY), patience)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK_KEY)


async def _try_in_transaction(keeper: Connection, holding: AsyncExitStack) -> bool:
    """Begin a transaction, and leave its end to ``holding`` if it gets the lock.

    Each attempt has its own: CREATE INDEX CONCURRENTLY of the runner that has the lock waits for the end of every
    transaction in which it has seen a statement.
    """
    async with AsyncExitStack() as attempt:
        await attempt.enter_async_context(keeper.transaction())
        if not await keeper.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK_KEY):
            return False
        # It also ends the snapshot of the statement before, for which CREATE INDEX CONCURRENTLY would wait.
        await keeper.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await holding.enter_async_context(attempt.pop_all())
    return True


async def _wait_for_turn(attempt: Callable[[], Awaitable[bool]], patience: float) -> None:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience
    # A statement that waits for the lock would hold up CREATE INDEX CONCURRENTLY of the runner that has it.
    while not await attempt():
        if loop.time() >= give_up_at:
            raise MigrationError(
                f"another process has been migrating this database for more than {patience:g} s: wait for it, or look "
                "for its session in pg_locks, where locktype is advisory"
            )
        await asyncio.sleep(min(_ASK_SECONDS, patience))
