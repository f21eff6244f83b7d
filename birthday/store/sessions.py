"""What every connection needs: a session of its own, and a database whose encoding can hold every name."""

import secrets
from typing import Final

import asyncpg

from birthday.errors import UnavailableError

SHARED_SESSION_ERRORS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""The errors of a prepared statement that is executed on another server connection than it was prepared on."""

NO_SESSIONS = (
    "the pooler before it hands connections out by transaction (pool_mode), and sessions are needed: LISTEN, advisory "
    "locks and prepared statements; use its session mode, or the address of the server itself"
)
_TRIES = 3

TIMEOUTS: Final = ("statement_timeout", "lock_timeout", "transaction_timeout")
"""The settings of a session that cancel what takes long."""


# The program limits its statements itself. A shorter limit, which somebody has set for the role, the database or the
# server, would cancel long ones, such as those of the planner, each time anew. What DATABASE_URL says is obeyed.
_SET: Final = """
    SET jit = off;
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout') AND setting <> '0' AND source <> 'client'
"""


async def set_session(connection: asyncpg.Connection, *, serving: bool) -> None:
    """Change the settings of a session. They are not sent at connection time, because a pooler refuses most of them."""
    await connection.execute(_SET)
    if serving:
        # If the service's host vanishes, its locks are released after this time, because others wait for them.
        await connection.execute("SET idle_in_transaction_session_timeout = '30s'")


async def check_sessions(pool: asyncpg.Pool) -> None:
    """Make sure that the encoding is UTF8, and that each connection of the pool is a session.

    Raises:
        UnavailableError: if not; the text says what to do.
    """
    async with pool.acquire() as one:
        encoding = one.get_settings().server_encoding
        if encoding != "UTF8":
            raise UnavailableError(
                "database",
                f"the database has the encoding {encoding}, which cannot hold every name; UTF8 is accepted: create it "
                "with --encoding=UTF8 --template=template0",
            )
        try:
            # Equal numbers mean that there is no pooler, because a pooler gives each client a number of its own.
            if await one.fetchval("SELECT pg_backend_pid()") == one.get_server_pid():
                return
            async with pool.acquire() as other:
                for _ in range(_TRIES):
                    if await _share(one, other) or await _share(other, one):
                        raise UnavailableError("database", NO_SESSIONS)
        except SHARED_SESSION_ERRORS:
            raise UnavailableError("database", NO_SESSIONS) from None


async def _share(one: asyncpg.pool.PoolConnectionProxy, other: asyncpg.pool.PoolConnectionProxy) -> bool:
    """Say whether a setting made in the session of one connection shows in that of the other one."""
    mark = secrets.token_hex(8)
    await one.execute("SELECT set_config('birthday.session', $1, false)", mark)
    shown: str | None = await other.fetchval("SELECT current_setting('birthday.session', true)")
    return shown == mark
