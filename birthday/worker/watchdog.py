"""Detects a consumer whose subscription died silently. It looks just like a consumer of an empty queue."""

from collections.abc import Awaitable, Callable

import structlog

from birthday.broker import QueueStats
from birthday.clock import Clock
from birthday.errors import UnavailableError
from birthday.store.connection import stay_cancelled
from birthday.telemetry.metrics import Metrics
from birthday.worker.pipeline import Pipeline

log = structlog.get_logger()

EVERY_SECONDS = 5.0
SUSPICIOUS_SECONDS = 10.0
UNCOUNTED_CHECKS = 18
"""In how many checks in a row the queue counts no consumer at all, before ours counts as stuck.

RabbitMQ also counts none while the leader of the queue is silent, until the cluster has given up on that node.
"""


class Watchdog:
    """Checks the consumer of one worker, and has it replaced if it is stuck."""

    def __init__(
        self,
        pipeline: Pipeline,
        read: Callable[[], Awaitable[QueueStats]],
        clock: Clock,
        metrics: Metrics,
        patience: float = SUSPICIOUS_SECONDS,
    ) -> None:
        """Keep what is passed in. ``patience`` is seconds without a delivery before the consumer counts as stuck."""
        self._pipeline = pipeline
        self._read = read
        self._clock = clock
        self._metrics = metrics
        self._patience = patience
        self._received_before: int | None = None
        self._uncounted = 0

    @property
    def suspicious(self) -> bool:
        """Whether the queue held messages while the worker waited for one, and none has come in since."""
        return self._received_before == self._pipeline.received

    async def run(self) -> None:
        """Have the consumer replaced when two checks in a row find it stuck, or the queue counts none for long.

        Two checks, because a message may have reached the queue just before the first one. Runs until cancelled.
        """
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            waiting_seconds, received = self._pipeline.waiting_seconds, self._pipeline.received
            is_starving = waiting_seconds >= self._patience
            if not is_starving and not self.suspicious:
                self._uncounted = 0
                continue
            stats = await self._stats()
            holds_messages = stats is not None and stats.ready > 0
            self._uncounted = self._uncounted + 1 if stats is not None and stats.consumers == 0 else 0
            if is_starving and ((holds_messages and self.suspicious) or self._uncounted >= UNCOUNTED_CHECKS):
                self._uncounted = 0
                self._metrics.consumer_restarts.inc()
                log.warning("worker.consumer_stuck", waiting_seconds=round(waiting_seconds))
                self._pipeline.resubscribe()
            # Kept for the next consumer too, until it has delivered something.
            self._received_before = received if holds_messages else None

    async def _stats(self) -> QueueStats | None:
        try:
            return await self._read()
        except UnavailableError:
            stay_cancelled()
            # The consumer notices this outage as well.
            return None
