"""A shortage of this host: while it lacks files, memory or its name service, sends pause and are not counted."""

from datetime import datetime, timedelta
from typing import Final

import structlog

from birthday.clock import Clock
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

_FIRST: Final = timedelta(milliseconds=250)
_LONGEST: Final = timedelta(seconds=5)


class Shortage:
    """The resource that the host of one worker lacks, and the pause in sending. The pause doubles up to 5 s."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        """Lack nothing at first."""
        self.lacks: str | None = None
        self.reason = ""
        self._clock = clock
        self._metrics = metrics
        self._pause = _FIRST
        self._until: datetime | None = None

    @property
    def pausing(self) -> bool:
        """Whether nothing may be sent now."""
        return self._left() > timedelta()

    async def wait(self) -> None:
        """Return when the next message may be tried."""
        while self.pausing:
            await self._clock.sleep(self._left().total_seconds())

    def meet(self, resource: str, reason: str) -> None:
        """Note that a send was impossible. Logged once, until the shortage ends or another resource is lacking."""
        self._metrics.resource_shortages.labels(resource).inc()
        if self.lacks != resource:
            log.error("worker.resource_lacking", resource=resource, reason=reason, action="sending pauses")
            self.lacks, self._pause = resource, _FIRST
        self.reason = reason
        if not self.pausing:
            # Sends that were under way together belong to one shortage, so they do not prolong the pause.
            self._until = self._clock.now() + self._pause
            self._pause = min(2 * self._pause, _LONGEST)

    def end(self) -> None:
        """Note that an attempt could be made."""
        if self.lacks is not None:
            log.info("worker.resource_available", resource=self.lacks)
            self.lacks, self._until, self._pause = None, None, _FIRST

    def _left(self) -> timedelta:
        """Return the rest of the pause. Setting the clock back does not prolong it."""
        left = self._until - self._clock.now() if self._until is not None else timedelta()
        return left if left <= _LONGEST else timedelta()
