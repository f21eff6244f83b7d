"""Read the figures of a dependency at intervals. As soon as it does not answer, they become unknown."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from birthday.clock import Clock
from birthday.errors import UnavailableError
from birthday.telemetry.figures import Figure
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

PATIENCE_SECONDS: Final = 2.0
"""If an answer takes longer, the figures become unknown. The answer is still waited for."""


async def keep_fresh(
    collector: str,
    read: Callable[[], Awaitable[None]],
    figures: Sequence[Figure],
    every_seconds: float,
    metrics: Metrics,
    clock: Clock,
) -> None:
    """Let ``read`` set ``figures`` at intervals, until cancelled. ``read`` must have a time limit of its own.

    As soon as it fails or is late, ``figures`` become unknown, and that is counted.
    """
    while True:
        reading = asyncio.ensure_future(read())
        try:
            _, late = await asyncio.wait({reading}, timeout=PATIENCE_SECONDS)
            if late:
                _forget(figures, metrics, collector, f"no answer within {PATIENCE_SECONDS:g} s")
            try:
                await reading
            except UnavailableError as error:
                if not late:
                    _forget(figures, metrics, collector, error)
        finally:
            reading.cancel()
        await clock.sleep(every_seconds)


def _forget(figures: Sequence[Figure], metrics: Metrics, collector: str, reason: str | UnavailableError) -> None:
    metrics.collector_errors.labels(collector).inc()
    log.debug("telemetry.unavailable", collector=collector, error=reason)
    for figure in figures:
        figure.set(None)
