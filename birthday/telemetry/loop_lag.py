"""The lag of the event loop: how late it runs a timer. It is always measured, because a lag delays every request."""

import asyncio
import time
from collections import deque
from typing import Final

import structlog

from birthday.errors import UnavailableError
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

EVERY_SECONDS: Final = 0.1
SHOWN_SECONDS: Final = 10.0
STOOD_SECONDS: Final = 5.0
"""If the loop is this late, the process stood still: it was frozen, starved, or ran one step for so long."""
TOLD_SECONDS: Final = 60.0
"""How long ``check`` tells of that afterwards."""


class LoopWatch:
    """Measures the lag, and remembers when the process last stood still."""

    def __init__(self, metrics: Metrics, patience: float = STOOD_SECONDS) -> None:
        """Measure nothing before ``run``. A lag of ``patience`` seconds is a standstill."""
        self._metrics = metrics
        self._patience = patience
        self._stood: tuple[float, float] | None = None

    async def run(self) -> None:
        """Measure until cancelled, ten times a second."""
        # uvloop's own clock stands still while a callback runs.
        recent: deque[float] = deque(maxlen=round(SHOWN_SECONDS / EVERY_SECONDS))
        while True:
            due = time.perf_counter() + EVERY_SECONDS
            await asyncio.sleep(EVERY_SECONDS)
            now = time.perf_counter()
            lag = max(now - due, 0)
            recent.append(lag)
            self._metrics.event_loop_delay_seconds.observe(lag)
            self._metrics.event_loop_lag_seconds.set(max(recent))
            if lag >= self._patience:
                self._stood = lag, now
                log.warning("process.stood_still", seconds=round(lag, 1))

    async def check(self) -> None:
        """Make sure that the process has not stood still within the last minute.

        Raises:
            UnavailableError: if it has; the text says for how long and when.
        """
        if self._stood is None:
            return
        seconds, until = self._stood
        ago = time.perf_counter() - until
        if ago < TOLD_SECONDS:
            raise UnavailableError(
                "event_loop", f"the process stood still for {seconds:.0f} s, until {ago:.0f} s ago: frozen or starved"
            )
