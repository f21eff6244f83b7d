"""Background tasks that must not end: one that fails is logged, counted and started again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from birthday.clock import Clock
from birthday.errors import UnavailableError
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

PAUSE_SECONDS: Final = 2.0
"""How long to wait before a task that failed is started again."""
STEADY_SECONDS: Final = 10.0
"""A task that runs for this long has recovered. One that has been failing for this long is reported by ``check``."""


@dataclass(slots=True)
class _Run:
    """When a task was last started, and since when it has been failing without recovery; both in the loop's time."""

    began: float
    failing_since: float | None = None


class Supervisor:
    """Keeps the background tasks of one process running."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._runs: dict[str, _Run] = {}

    async def keep(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run ``task`` until cancelled, and start it again whenever it ends."""
        loop = asyncio.get_running_loop()
        run = self._runs.setdefault(name, _Run(loop.time()))
        while True:
            run.began = loop.time()
            try:
                await task()
            except Exception:
                # A task that is being cancelled may end with another error, such as that of a closed connection.
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise asyncio.CancelledError from None
                log.exception("background.failed", task=name)
            else:
                log.error("background.ended", task=name)
            self._metrics.background_failures.labels(name).inc()
            if run.failing_since is None or loop.time() - run.began >= STEADY_SECONDS:
                run.failing_since = loop.time()
            await self._clock.sleep(PAUSE_SECONDS)

    async def check(self) -> None:
        """Make sure that every task runs.

        Raises:
            UnavailableError: if one has been failing for ``STEADY_SECONDS`` or more.
        """
        now = asyncio.get_running_loop().time()
        for name, run in self._runs.items():
            if run.failing_since is None or now - run.began >= STEADY_SECONDS:
                continue
            seconds = now - run.failing_since
            if seconds >= STEADY_SECONDS:
                raise UnavailableError(
                    "background", f"the task '{name}' has been failing for {seconds:.0f} s: see the log"
                )
