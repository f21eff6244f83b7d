"""A pool of connections with metrics: how many are lent, how long callers wait, and how long statements take."""

import time
from collections.abc import Awaitable, Generator
from typing import Any, Final

from asyncpg.pool import PoolConnectionProxy

from birthday.store.replacing import ReplacingPool
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.statements import statement_observer

_WINDOW_SECONDS: Final = 5.0


def make_pool(dsn: str, metrics: Metrics | None, **options: Any) -> ReplacingPool:  # noqa: ANN401 - those of the pool
    """Return a pool that must be awaited, a ``MeasuredPool`` if there are metrics."""
    return ReplacingPool(dsn, **options) if metrics is None else MeasuredPool(dsn, metrics, **options)


class MeasuredPool(ReplacingPool):
    """The pool of the service, with metrics."""

    def __init__(self, dsn: str, metrics: Metrics, **options: Any) -> None:  # noqa: ANN401 - those of the pool
        """Take what ``ReplacingPool`` takes; await it to open the pool."""
        super().__init__(dsn, serving=True, observe=statement_observer(metrics), **options)
        self._waiting_since: dict[object, float] = {}
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
