"""The figures of the queue. Every process refreshes them, so that each can be scraped alone."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from birthday.clock import Clock
from birthday.telemetry.freshness import keep_fresh
from birthday.telemetry.metrics import Metrics

EVERY_SECONDS = 5.0


class QueueCounts(Protocol):
    """The counts that become figures."""

    @property
    def ready(self) -> int:
        """How many can be consumed."""
        ...

    @property
    def unacked(self) -> int:
        """How many consumers hold."""
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
    """Refresh the figures until cancelled. While the queue cannot be asked, they are unknown."""
    figures = (
        metrics.queue_depth,
        metrics.unacked_messages_count,
        metrics.queue_delayed,
        metrics.dlq_depth,
        metrics.consumer_count,
    )

    async def refresh() -> None:
        counts = await read()
        values = (counts.ready, counts.unacked, counts.delayed, counts.dead, counts.consumers)
        for figure, value in zip(figures, values, strict=True):
            figure.set(value)

    await keep_fresh("queue", refresh, figures, EVERY_SECONDS, metrics, clock)
