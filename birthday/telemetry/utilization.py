"""How much capacity the worker of this process has left: sampled, so that the pipeline need not count."""

from collections.abc import Callable
from typing import Final

from birthday.clock import Clock
from birthday.telemetry.metrics import Metrics

EVERY_SECONDS: Final = 5.0
LOOKS: Final = 50


async def watch_utilization(could_take: Callable[[], bool], metrics: Metrics, clock: Clock) -> None:
    """Show the share of each interval in which the worker could take a message at once, until cancelled."""
    while True:
        ready = 0
        for _ in range(LOOKS):
            await clock.sleep(EVERY_SECONDS / LOOKS)
            ready += could_take()
        metrics.queue_consumer_utilization.set(ready / LOOKS)
