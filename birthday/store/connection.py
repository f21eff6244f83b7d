"""Connections of the pool, lent for a bounded wait; every way in which the database can be away is one error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def borrow(
    pool: asyncpg.Pool, seconds: float | None = LOAN_SECONDS
) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
    """Lend a connection of the pool for the length of the context.

    By default that is for short work that somebody waits for; long work says with None that it takes its time.

    Raises:
        UnavailableError: if none is free in time, the time runs out, or the database cannot be used.
    """
    try:
        async with asyncio.timeout(seconds), pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            yield connection
    except ValueError:
        # asyncpg's DataError, which is an InterfaceError too: an argument of the wrong type is our mistake.
        raise
    except TimeoutError:
        raise UnavailableError("database", "the database did not answer in time") from None
    except _AWAY as error:
        raise UnavailableError("database", f"the database cannot be used: {error}") from error


async def check_database(pool: asyncpg.Pool) -> None:
    """Make sure that the database answers.

    Raises:
        UnavailableError: if it does not.
    """
    async with borrow(pool) as connection:
        await connection.execute("SELECT 1")
