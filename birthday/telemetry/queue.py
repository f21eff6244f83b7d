"""The gauges of the queue, refreshed all the time by every process, so that each can be scraped alone."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from birthday.clock import Clock
from birthday.errors import UnavailableError
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

EVERY_SECONDS = 5.0


class QueueCounts(Protocol):
    """The counts that become gauges."""

    @property
    def ready(self) -> int:
        """How many can be consumed."""
        ...

    @property
    def delayed(self) -> int:
        """How many wait for another attempt."""
        ...

    @property
    def dead(self) -> int:
        """How many are dead-lettered."""
        ...

    @property
    def consumers(self) -> int:
        """How many consumers there are."""
        ...


async def watch_queue(read: Callable[[], Awaitable[QueueCounts]], metrics: Metrics, clock: Clock) -> None:
    """Refresh the gauges until cancelled. If the queue cannot be asked, that is counted, and they keep their values."""
    while True:
        try:
            counts = await read()
        except UnavailableError as error:
            metrics.collector_errors.labels("queue").inc()
            log.debug("telemetry.queue_unavailable", error=str(error))
        else:
            metrics.queue_depth.set(counts.ready)
            metrics.queue_delayed.set(counts.delayed)
            metrics.dlq_depth.set(counts.dead)
            metrics.consumer_count.set(counts.consumers)
        await clock.sleep(EVERY_SECONDS)
