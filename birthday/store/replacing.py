"""A pool that replaces connections: each before it is 30 minutes old, and all once their server cannot be written to.

A replaced connection that is not lent is closed at once. One that is lent is closed when it is given back.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import asyncpg
import structlog
from asyncpg.pool import Pool

from birthday.store.connection import has_moved
from birthday.store.hosts import Hosts
from birthday.store.sessions import set_session
from birthday.store.tcp import limit_silence

_QUERIES: Final = 50_000
"""asyncpg's own default, repeated here because only its ``create_pool`` has it."""
_IDLE_SECONDS: Final = 3.0
"""An unused connection above the minimum is closed after this time. Behind a pooler in session mode, or at the limit of
the server, another process may be waiting for it, for ``ACQUIRE_SECONDS`` at most."""
MAX_AGE_SECONDS: Final = 1800.0
_REPLACE_SECONDS: Final = 1.0
"""All connections are replaced at most this often, because new ones do not help if every server is read-only."""
_FIXED_TYPES: Final = 10_000
"""Types with smaller numbers are PostgreSQL's own, and the same in every database."""

log = structlog.get_logger()


class _Asked(NamedTuple):
    """Stands for asyncpg's statement about types where their description is known. It has a name, so none is lost."""

    name: str = "asked before"


async def _ignore(_error: asyncpg.PostgresError) -> None:
    """Do nothing."""


def _measured(method: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    async def measured(self: "MeasuredConnection", query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - asyncpg's
        began = time.perf_counter()
        try:
            return await method(self, query, *args, **options)
        except asyncpg.PostgresError as error:
            await self.on_error(error)
            raise
        finally:
            self.observe(query, time.perf_counter() - began)

    return measured


class MeasuredConnection(asyncpg.Connection):
    """A connection that measures how long each statement takes. asyncpg's query loggers cost three times as much."""

    observe: Callable[[str, float], None] = staticmethod(lambda _query, _seconds: None)
    """It has a default because asyncpg may execute a query, to find the wanted server, before ``init`` sets it."""
    on_error: Callable[[asyncpg.PostgresError], Awaitable[None]] = staticmethod(_ignore)
    _lent = False
    by_transaction = False
    """Whether it has no session of its own: see ``store/sessions.py``."""
    retired = False
    """Whether it is to be replaced. Who keeps it for long should give it back."""

    execute = _measured(asyncpg.Connection.execute)
    fetch = _measured(asyncpg.Connection.fetch)
    fetchrow = _measured(asyncpg.Connection.fetchrow)
    fetchval = _measured(asyncpg.Connection.fetchval)

    def __init__(self, protocol: Any, transport: asyncio.BaseTransport, *others: Any) -> None:  # noqa: ANN401 - asyncpg's
        """Take what asyncpg passes."""
        super().__init__(protocol, transport, *others)
        self.types: dict[frozenset[int], Any] = {}
        limit_silence(transport)

    async def _introspect_types(self, oids: Collection[int], timeout: float | None) -> tuple[Any, Any]:  # noqa: ASYNC109 - asyncpg's
        """Describe types, such as arrays. asyncpg asks on each connection, which takes 4 ms of the server's time."""
        key = frozenset(oids)
        if key in self.types:
            return self.types[key], _Asked()
        types, statement = await super()._introspect_types(oids, timeout)  # type: ignore[misc] # private
        if max(key) < _FIXED_TYPES:
            self.types[key] = types
        return types, statement

    def lend(self) -> None:
        """Note that the connection is in use, and must not be closed."""
        self._lent = True

    def give_back(self) -> None:
        """Note that the connection is not in use; close it if it is to be replaced."""
        self._lent = False
        if self.retired:
            self.terminate()

    def retire(self) -> None:
        """Close the connection, at once or when it is given back."""
        self.retired = True
        if not self._lent and not self.is_closed():
            self.terminate()


class PooledConnection(MeasuredConnection):
    """A connection behind a pooler that hands connections out by transaction. Nothing that it does outlives one."""

    by_transaction = True

    async def _get_statement(self, *given: Any, **options: Any) -> Any:  # noqa: ANN401 - asyncpg's
        """Prepare a statement without a name, also for a cursor, for which asyncpg wants one. It would stay."""
        return await super()._get_statement(*given, **(options | {"named": False}))  # type: ignore[misc] # private


async def _lend(connection: Any) -> None:  # noqa: ANN401 - a proxy of a MeasuredConnection, which has its methods
    connection.lend()


async def _keep_session(connection: MeasuredConnection) -> None:
    """Give a connection back to its pool without resetting its session. asyncpg still ends an open transaction.

    By default asyncpg sends a query that resets the session, which takes as long as a small statement. The reset is not
    needed, because code that changes the session (SET, LISTEN, an advisory lock, a temporary table) undoes the change
    before it gives the connection back: ``broker/postgres/``, ``store/migrations.py`` and ``store/transfer.py`` do so.
    Settings that are local to a transaction end with it.
    """
    connection.give_back()


class ReplacingPool(Pool):
    """A pool like any other of asyncpg's, on one of several hosts. It keeps sessions, and replaces connections."""

    def __init__(
        self,
        dsn: str,
        *,
        hosts: Hosts | None = None,
        serving: bool = False,
        by_transaction: bool = False,
        max_age: float = MAX_AGE_SECONDS,
        observe: Callable[[str, float], None] = MeasuredConnection.observe,
        **options: Any,  # noqa: ANN401 - those of create_pool
    ) -> None:
        """Take what ``asyncpg.create_pool`` takes; await it to open the pool. ``hosts`` are used instead of the DSN's.

        ``max_age`` is in seconds, ``serving`` says whether others may wait for the sessions, ``by_transaction`` that a
        pooler shares them, and ``observe`` is told how long each statement took.
        """
        self.by_transaction = by_transaction
        self._connections: WeakSet[MeasuredConnection] = WeakSet()
        self._replaced_at = float("-inf")
        self._max_age = max_age
        types: dict[frozenset[int], Any] = {}

        async def init(connection: MeasuredConnection) -> None:
            connection.observe = observe
            connection.on_error = self._replace_if_moved
            connection.types = types
            if not by_transaction:
                await set_session(connection, serving=serving)
            self._limit_age(connection)

        defaults = {
            "max_queries": _QUERIES,
            "max_inactive_connection_lifetime": _IDLE_SECONDS,
            "loop": None,
            "connect": hosts and hosts.connect,
            "connection_class": MeasuredConnection,
            "record_class": asyncpg.Record,
            "init": init,
            "setup": _lend,
            "reset": _keep_session,
        }
        if by_transaction:
            # Without a cache, asyncpg sends each statement whole, and names none but those of cursors.
            defaults |= {"connection_class": PooledConnection, "statement_cache_size": 0}
        super().__init__(dsn, **(defaults | options))

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:  # noqa: ANN401, ASYNC109 - asyncpg's
        """Take a connection back, at once if nothing is under way on it.

        asyncpg does that in a task of its own, in case it has to wait. That takes three turns of the event loop, longer
        than the statement itself while all slots of a worker are busy.
        """
        own, holder = getattr(connection, "_con", None), getattr(connection, "_holder", None)
        if own is None or holder is None or own.is_in_transaction() or own._protocol._is_cancelling():  # noqa: SLF001
            await super().release(connection, timeout=timeout)
        else:
            own._on_release()  # noqa: SLF001 - as asyncpg's own method does
            await holder.release(holder._timeout if timeout is None else timeout)  # noqa: SLF001

    async def expire_connections(self) -> None:
        """Replace all connections; those that are not lent are closed at once."""
        await super().expire_connections()
        for connection in list(self._connections):
            connection.retire()

    def _limit_age(self, connection: MeasuredConnection) -> None:
        """Retire the connection in time; not all at once, because most of them were opened together."""
        seconds = self._max_age * random.uniform(0.8, 1)  # noqa: S311 - no secret
        timer = asyncio.get_running_loop().call_later(seconds, connection.retire)
        connection.add_termination_listener(lambda _: timer.cancel())
        self._connections.add(connection)

    async def _replace_if_moved(self, error: asyncpg.PostgresError) -> None:
        """Replace all connections if ``error`` says that their server cannot be written to any more."""
        now = time.perf_counter()
        if has_moved(error) and now - self._replaced_at >= _REPLACE_SECONDS:
            self._replaced_at = now
            log.warning("database.connections_replaced", error=error)
            await self.expire_connections()
