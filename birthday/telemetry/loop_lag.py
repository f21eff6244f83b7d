"""The lag of the event loop: how late it runs a timer. It is always measured, because a lag delays every request."""

import asyncio
import time
from collections import deque
from typing import Final

from birthday.telemetry.metrics import Metrics

EVERY_SECONDS: Final = 0.1
SHOWN_SECONDS: Final = 10.0


async def watch_loop(metrics: Metrics) -> None:
    """Measure until cancelled, ten times a second."""
    # uvloop's own clock stands still while a callback runs.
    recent: deque[float] = deque(maxlen=round(SHOWN_SECONDS / EVERY_SECONDS))
    while True:
        due = time.perf_counter() + EVERY_SECONDS
        await asyncio.sleep(EVERY_SECONDS)
        lag = max(time.perf_counter() - due, 0)
        recent.append(lag)
        metrics.event_loop_delay_seconds.observe(lag)
        metrics.event_loop_lag_seconds.set(max(recent))
