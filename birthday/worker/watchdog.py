"""A watch on the consumer: a subscription that has died without a word looks just like an empty queue."""

from collections.abc import Awaitable, Callable

import structlog

from birthday.broker import QueueStats
from birthday.clock import Clock
from birthday.errors import UnavailableError
from birthday.telemetry.metrics import Metrics
from birthday.worker.pipeline import Pipeline

log = structlog.get_logger()

EVERY_SECONDS = 5.0
SUSPICIOUS_SECONDS = 10.0


async def watch_consumer(
    pipeline: Pipeline,
    read: Callable[[], Awaitable[QueueStats]],
    clock: Clock,
    metrics: Metrics,
    patience: float = SUSPICIOUS_SECONDS,
) -> None:
    """Subscribe anew whenever the queue twice in a row held messages while the worker waited in vain for one.

    ``patience`` is how many seconds are in vain. Twice, because a message may have come in just before the queue was
    asked.
    """
    suspicious = False
    while True:
        await clock.sleep(EVERY_SECONDS)
        starving = pipeline.waiting_seconds >= patience and await _holds_messages(read)
        if starving and suspicious:
            metrics.consumer_restarts.inc()
            log.warning("worker.consumer_stuck", waiting_seconds=round(pipeline.waiting_seconds))
            pipeline.resubscribe()
        suspicious = starving


async def _holds_messages(read: Callable[[], Awaitable[QueueStats]]) -> bool:
    try:
        return (await read()).ready > 0
    except UnavailableError:
        # Whoever receives notices as well.
        return False
