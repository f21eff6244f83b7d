"""Lend connections of the pool for a limited time, and turn every kind of outage of the database into one error."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal

import asyncpg

from birthday.errors import UnavailableError
from birthday.store.sessions import NO_SESSIONS, SHARED_SESSION_ERRORS

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
"""A connection of its own, or one that the pool has lent."""

DATABASE_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when the database is gone, restarting, overloaded or has aborted a deadlock.

``InternalClientError`` is among them because asyncpg raises it if the server dies in the middle of an exchange.
"""

ACQUIRE_SECONDS = 5.0
"""How long a caller waits for a free connection, and for a connection to be cleaned up when it is given back."""

LOAN_SECONDS = 10.0
"""How long a caller may keep a connection, including the wait for it. This limits how long clients wait."""

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
    """Say whether the same statement may succeed later, because the error does not depend on the data."""
    if isinstance(error, asyncpg.PostgresError):
        # A statement that was prepared for an older schema, or on another connection of the server, was not executed.
        stale = isinstance(error, (asyncpg.InvalidCachedStatementError, *SHARED_SESSION_ERRORS))
        return stale or str(error.sqlstate).startswith(_OUTAGE_CLASSES)
    # asyncpg's DataError is an InterfaceError too: an argument that cannot be sent.
    return not isinstance(error, ValueError)


_STARTING_CLASSES = ("08", "53", "57", "58")
"""Classes of SQLSTATE that a start waits out. A refused login or an unknown database is not among them."""


def is_away(error: Exception) -> bool:
    """Say whether a connection that failed with ``error`` may succeed later although nobody changes a setting."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(_STARTING_CLASSES)
    # A wrong certificate is an OSError, too.
    return isinstance(error, OSError | asyncpg.InternalClientError) and not isinstance(error, ssl.SSLError)


_MOVED = ("25006", "57P01", "57P02", "57P03", "57P04", "57P05")
"""The server is read-only, or ends the session."""


def has_moved(error: asyncpg.PostgresError) -> bool:
    """Say whether the server of the session cannot be written to any more, for example after a switchover.

    A new connection to the same host name may lead to another server.
    """
    recovering = error.sqlstate == "55000" and "recovery" in str(error)
    return recovering or error.sqlstate in _MOVED


def _loses_the_answer(error: Exception) -> bool:
    """Say whether the statement may have been committed, because the server has not said that it failed."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate).startswith(("08", "57P01", "57P02"))
    return True


@asynccontextmanager
async def borrow(
    pool: asyncpg.Pool, seconds: float | None = LOAN_SECONDS
) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
    """Lend a connection of the pool for the length of the context.

    The default ``seconds`` is for short work that a client waits for. Long work passes None: no limit.

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
    except SHARED_SESSION_ERRORS:
        # The pooler has kept sessions when the process started. The statement was not executed.
        raise UnavailableError("database", NO_SESSIONS) from None
    except _AWAY as error:
        maybe_done = lent and _loses_the_answer(error)
        raise UnavailableError("database", f"the database cannot be used: {error}", maybe_done=maybe_done) from error


@asynccontextmanager
async def rehearsal(connection: Connection, isolation: Literal["read_committed"] | None = None) -> AsyncIterator[None]:
    """Take back what is changed within the context, in which the changes can be looked at."""
    transaction = connection.transaction(isolation=isolation)
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def rows_changed(status: str) -> int:
    """Return how many rows a statement has changed, by the status of its execution, such as ``UPDATE 3``."""
    return int(status.rpartition(" ")[2])


def stay_cancelled() -> None:
    """Raise again the cancellation of the current task, if there is one. Call this where database errors are caught.

    If a connection breaks while a cancelled task gives it back, its error replaces the cancellation.

    Raises:
        CancelledError: if the current task has been cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def read_clock(connection: Connection) -> datetime:
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


async def knows_case(connection: Connection) -> bool:
    """Say whether the database's locale knows the case of letters beyond ASCII. Unique addresses depend on it."""
    known: bool = await connection.fetchval("SELECT lower('\u00c4') = '\u00e4'")
    return known
