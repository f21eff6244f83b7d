"""Connections of the pool, lent for a bounded wait; every way in which the database can be away is one error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg

from birthday.errors import UnavailableError

DATABASE_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when the database is gone, restarting, overloaded or has aborted a deadlock.

``InternalClientError`` is among them: a server that dies in the middle of an exchange leaves its driver confused.
"""

ACQUIRE_SECONDS = 5.0
"""How long a caller waits for a free connection, and for a connection to be cleaned up when it is given back."""

LOAN_SECONDS = 10.0
"""How long a caller may keep a connection, the wait for it included: nobody who waits for an answer waits longer."""

_AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.UndefinedTableError,
)
"""No connection, a lost one, a server that shuts down, is full or in recovery, and a database that is not migrated."""


_OUTAGE_CLASSES = ("08", "25", "28", "3D", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that say nothing about a row: connection, read-only, authorization, no database, rollback,
resources, state, operator and system."""


def is_outage(error: Exception) -> bool:
    """Say whether one of ``DATABASE_ERRORS`` may be gone when the same is tried again, whatever the data are."""
    if isinstance(error, asyncpg.PostgresError):
        # What is prepared for an older schema is prepared anew.
        stale = isinstance(error, asyncpg.InvalidCachedStatementError)
        return stale or str(error.sqlstate).startswith(_OUTAGE_CLASSES)
    # asyncpg's DataError is an InterfaceError too: an argument that cannot be sent.
    return not isinstance(error, ValueError)


_MOVED = ("25006", "57P01", "57P02", "57P03", "57P04", "57P05")
"""A server that may only be read from, or ends the session."""


def has_moved(error: asyncpg.PostgresError) -> bool:
    """Say whether the session is on a server that is none to write to any more, as after a switchover.

    Another connection, to the same name, may lead to another server.
    """
    recovering = error.sqlstate == "55000" and "recovery" in str(error)
    return recovering or error.sqlstate in _MOVED


def _loses_the_answer(error: Exception) -> bool:
    """Say whether the statement may have been committed: the server has not said that it failed."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(("08", "57P01", "57P02"))
    return True


@asynccontextmanager
async def borrow(
    pool: asyncpg.Pool, seconds: float | None = LOAN_SECONDS
) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
    """Lend a connection of the pool for the length of the context.

    By default that is for short work that somebody waits for; long work says with None that it takes its time.

    Raises:
        UnavailableError: if none is free in time, the time runs out, or the database cannot be used.
    """
    lent = False
    try:
        async with asyncio.timeout(seconds), pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            lent = True
            yield connection
    except ValueError:
        # asyncpg's DataError, which is an InterfaceError too: an argument of the wrong type is our mistake.
        raise
    except TimeoutError:
        raise UnavailableError("database", "the database did not answer in time", maybe_done=lent) from None
    except _AWAY as error:
        maybe_done = lent and _loses_the_answer(error)
        raise UnavailableError("database", f"the database cannot be used: {error}", maybe_done=maybe_done) from error


async def keep_session(_connection: asyncpg.Connection) -> None:
    """Give a connection back to its pool as it is, but for an open transaction, which asyncpg ends in any case.

    By default asyncpg sends a query that resets the session, which takes as long as a small statement. Nothing of ours
    needs it: whoever changes the session of a connection (SET, LISTEN, an advisory lock, a temporary table) undoes that
    before giving it back, as ``broker/postgres/``, ``store/migrations.py`` and ``store/transfer.py`` do. What is set
    for the length of a transaction is undone with it.
    """


def stay_cancelled() -> None:
    """Go on being cancelled, for whoever catches database errors in a loop.

    A connection that breaks while a cancelled task gives it back raises its own error in place of the cancellation.

    Raises:
        CancelledError: if the current task has been cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def read_clock(connection: asyncpg.Connection | asyncpg.pool.PoolConnectionProxy) -> datetime:
    """Return what the database's clock shows. Only ``clock_guard.py`` compares it with another one."""
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return now


async def check_database(pool: asyncpg.Pool) -> None:
    """Make sure that the database answers and can be written to.

    Raises:
        UnavailableError: if it does not or cannot; the text says why.
    """
    async with borrow(pool) as connection:
        row = await connection.fetchrow(
            "SELECT pg_is_in_recovery() AS replica, current_setting('transaction_read_only') = 'on' AS read_only"
        )
    if row is not None and (row["replica"] or row["read_only"]):
        # Another connection may lead to the server that is the primary by now.
        await pool.expire_connections()
    if row is not None and row["replica"]:
        raise UnavailableError("database", "the database is a replica, or in recovery: it cannot be written to")
    if row is not None and row["read_only"]:
        raise UnavailableError(
            "database", "the database is read-only (default_transaction_read_only): it cannot be written to"
        )


async def knows_case(connection: asyncpg.Connection | asyncpg.pool.PoolConnectionProxy) -> bool:
    """Say whether the database's locale knows the case of letters beyond ASCII, as unique addresses need it."""
    known: bool = await connection.fetchval("SELECT lower('\u00c4') = '\u00e4'")
    return known
