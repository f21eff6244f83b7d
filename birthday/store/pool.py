"""A pool of connections with metrics: how many are lent, how long callers wait, and how long statements take."""

import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Final

import asyncpg
import structlog
from asyncpg.pool import Pool, PoolConnectionProxy

from birthday.store.connection import has_moved
from birthday.store.sessions import set_session
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.statements import statement_observer

_QUERIES: Final = 50_000
_IDLE_SECONDS: Final = 300.0
"""These two are asyncpg's own defaults, repeated here because only its ``create_pool`` has them."""
_WINDOW_SECONDS: Final = 5.0
_REPLACE_SECONDS: Final = 1.0
"""All connections are replaced at most this often, because new ones do not help if every server is read-only."""

log = structlog.get_logger()


def make_pool(dsn: str, metrics: Metrics | None, **options: Any) -> Pool:  # noqa: ANN401 - those of create_pool
    """Return a pool that must be awaited, a ``MeasuredPool`` if there are metrics; ``options`` are asyncpg's."""
    if metrics is not None:
        return MeasuredPool(dsn, metrics, **options)
    return asyncpg.create_pool(dsn, init=partial(set_session, serving=False), **options)


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

    execute = _measured(asyncpg.Connection.execute)
    fetch = _measured(asyncpg.Connection.fetch)
    fetchrow = _measured(asyncpg.Connection.fetchrow)
    fetchval = _measured(asyncpg.Connection.fetchval)


class MeasuredPool(Pool):
    """A pool like any other of asyncpg's, with metrics."""

    def __init__(self, dsn: str, metrics: Metrics, **options: Any) -> None:  # noqa: ANN401 - those of create_pool
        """Take what ``asyncpg.create_pool`` takes; await it to open the pool."""
        observe = statement_observer(metrics)

        async def init(connection: MeasuredConnection) -> None:
            connection.observe = observe
            connection.on_error = self._replace_if_moved
            await set_session(connection, serving=True)

        defaults = {
            "max_queries": _QUERIES,
            "max_inactive_connection_lifetime": _IDLE_SECONDS,
            "loop": None,
            "connection_class": MeasuredConnection,
            "record_class": asyncpg.Record,
            "init": init,
        }
        super().__init__(dsn, **(defaults | options))
        self._waiting_since: dict[object, float] = {}
        self._replaced_at = float("-inf")
        self._waits = _Recent()
        self._acquisition_time = metrics.connection_pool_acquisition_time
        metrics.db_connections_max.set(self.get_max_size())
        metrics.db_connections_open.set_function(self.get_size)
        metrics.db_connections_active.set_function(lambda: self.get_size() - self.get_idle_size())
        metrics.db_pool_waiting_requests.set_function(lambda: len(self._waiting_since))
        metrics.connection_pool_wait_time.set_function(self.longest_wait)

    def acquire(self, *, timeout: float | None = None) -> "_Acquiring":  # type: ignore[override] # it does the same
        """Lend a connection, and measure the wait for it. The pool's own methods use this too."""
        return _Acquiring(self, super().acquire(timeout=timeout))

    async def measure(self, acquiring: Awaitable[PoolConnectionProxy]) -> PoolConnectionProxy:
        """Wait for a connection, and note for how long."""
        caller, since = object(), time.perf_counter()
        self._waiting_since[caller] = since
        try:
            return await acquiring
        finally:
            del self._waiting_since[caller]
            seconds = time.perf_counter() - since
            self._waits.note(seconds)
            self._acquisition_time.observe(seconds)

    async def _replace_if_moved(self, error: asyncpg.PostgresError) -> None:
        """Replace all connections if ``error`` says that their server cannot be written to any more."""
        now = time.perf_counter()
        if has_moved(error) and now - self._replaced_at >= _REPLACE_SECONDS:
            self._replaced_at = now
            log.warning("database.connections_replaced", error=error)
            await self.expire_connections()

    def longest_wait(self) -> float:
        """Return the longest wait for a connection in the last seconds, in seconds, including current waits."""
        now = time.perf_counter()
        return max([self._waits.longest(), *(now - since for since in self._waiting_since.values())])


class _Acquiring:
    """What ``acquire`` returns: it can be awaited, or used as a context manager."""

    _connection: PoolConnectionProxy

    def __init__(self, pool: MeasuredPool, acquiring: Awaitable[PoolConnectionProxy]) -> None:
        self._pool = pool
        self._acquiring = acquiring

    def __await__(self) -> Generator[Any, None, PoolConnectionProxy]:
        return self._pool.measure(self._acquiring).__await__()

    async def __aenter__(self) -> PoolConnectionProxy:
        self._connection = await self
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._pool.release(self._connection)


class _Recent:
    """The longest of some durations, in seconds, within the last five to ten seconds."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._now = self._before = 0.0

    def note(self, seconds: float) -> None:
        self._turn()
        self._now = max(self._now, seconds)

    def longest(self) -> float:
        self._turn()
        return max(self._now, self._before)

    def _turn(self) -> None:
        now = time.perf_counter()
        elapsed = now - self._since
        if elapsed >= _WINDOW_SECONDS:
            self._before = self._now if elapsed < 2 * _WINDOW_SECONDS else 0.0
            self._now, self._since = 0.0, now
