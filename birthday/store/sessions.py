"""Whether the connections of a pool are sessions, or are lent by a pooler; and a database that can hold every name.

A pooler that hands connections out by transaction (pgbouncer: ``pool_mode = transaction``) executes each transaction of
a client on whichever connection of the server is free. Then nothing may outlive its transaction: no prepared statement,
SET, LISTEN, advisory lock or temporary table. Such a pool has ``by_transaction``, and so do its connections.
"""

import secrets
from enum import StrEnum
from typing import Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from birthday.errors import UnavailableError

SHARED_SESSION_ERRORS = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
"""The errors of a prepared statement that is executed on another server connection than it was prepared on."""

NO_SESSIONS = (
    "the pooler before it hands connections out by transaction (pool_mode): set DATABASE_POOLER=transaction and, if "
    "possible, DATABASE_DIRECT_URL to the address of the server itself; or use the session mode of the pooler"
)
_NO_TRANSACTIONS = (
    "the pooler before it hands connections out by statement (pool_mode), and transactions are needed: use its "
    "transaction or session mode"
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


class Pooler(StrEnum):
    """What is before the database.

    NONE          nothing: each connection leads to the server itself
    SESSION       a pooler that lends a client a connection for as long as it is connected
    TRANSACTION   a pooler that lends a client a connection for a transaction or a statement
    """

    NONE = "none"
    SESSION = "session"
    TRANSACTION = "transaction"


def is_shared(connection: asyncpg.Pool | asyncpg.Connection | PoolConnectionProxy) -> bool:
    """Say whether a connection, or those of a pool, are no sessions."""
    shared: bool = getattr(connection, "by_transaction", False)
    return shared


async def set_session(connection: asyncpg.Connection, *, serving: bool) -> None:
    """Change the settings of a session. They are not sent at connection time, because a pooler refuses most of them."""
    await connection.execute(_SET)
    if serving:
        # If the service's host vanishes, its locks are released after this time, because others wait for them.
        await connection.execute("SET idle_in_transaction_session_timeout = '30s'")


async def check_sessions(pool: asyncpg.Pool) -> Pooler:
    """Make sure that the encoding is UTF8, and that the pooler before the database, if any, is as the settings say.

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
            if await _server_pid(one) == one.get_server_pid():
                return Pooler.NONE
            async with pool.acquire() as other:
                shared = await _share(one, other)
        except SHARED_SESSION_ERRORS:
            shared = True
        if shared and not is_shared(pool):
            raise UnavailableError("database", NO_SESSIONS)
        if shared:
            await _require_transactions(one)
        return Pooler.TRANSACTION if shared else Pooler.SESSION


async def _share(one: PoolConnectionProxy, other: PoolConnectionProxy) -> bool:
    """Say whether two connections, or two statements of one of them, reach the same or different server processes.

    Asked twice in a row, also a pooler that takes its connections in turn gives itself away.
    """
    for _ in range(_TRIES):
        first, second, others = await _server_pid(one), await _server_pid(one), await _server_pid(other)
        if first != second or others in {first, second}:
            return True
    return False


async def _server_pid(connection: PoolConnectionProxy) -> int:
    pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    return pid


async def _require_transactions(connection: PoolConnectionProxy) -> None:
    try:
        async with connection.transaction():
            await connection.execute("SELECT")
    except asyncpg.PostgresError as error:
        if "statement pool" not in str(error):
            raise
        raise UnavailableError("database", _NO_TRANSACTIONS) from None


async def is_same_database(one: asyncpg.Pool, other: asyncpg.Pool) -> bool:
    """Say whether two pools lead to one database of one server: an advisory lock of the one is seen by the other."""
    key = secrets.randbits(62)
    async with one.acquire() as holder, holder.transaction():
        await holder.execute("SELECT pg_advisory_xact_lock($1)", key)
        return not await other.fetchval("SELECT pg_try_advisory_xact_lock($1)", key)


async def missing_role_settings(pool: asyncpg.Pool) -> list[str]:
    """Return what ``set_session`` would set but that a pool without sessions gets from the role only, as ALTER ROLE."""
    rows = await pool.fetch(
        """
        SELECT format('ALTER ROLE %I SET %s', current_user, wanted.setting)
        FROM (VALUES ('jit = off', current_setting('jit') = 'on'),
                     ('idle_in_transaction_session_timeout = ''30s''',
                      current_setting('idle_in_transaction_session_timeout') = '0')) AS wanted (setting, is_missing)
        WHERE wanted.is_missing
        """
    )
    return [row[0] for row in rows]
