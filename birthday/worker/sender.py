"""Step 3b, send: one letter, one try, if the circuit lets it through and the lease is long enough."""

import asyncio
from dataclasses import dataclass

import structlog
from prometheus_async.aio import time

from birthday.channel import Channel, Outcome, Temporary
from birthday.channel.breaker import CircuitBreaker, CircuitState
from birthday.clock import Clock
from birthday.core.message import ErrorType
from birthday.telemetry.metrics import Metrics
from birthday.worker.letters import Done, Job, letter_for

log = structlog.get_logger()

API = "message-service"


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends letters for one worker."""

    channel: Channel
    breaker: CircuitBreaker
    clock: Clock
    metrics: Metrics

    async def send(self, job: Job) -> Done:
        """Send a claimed message, unless the circuit is open or the lease could run out before the answer."""
        lease_is_short = asyncio.get_running_loop().time() > job.send_by
        ticket = None if lease_is_short else self.breaker.admit()
        if ticket is None:
            return self.give_back(job)
        probe = self.breaker.state is not CircuitState.CLOSED
        sent_at = self.clock.now()
        try:
            outcome = await self._try(job)
            self.breaker.record(ticket, outcome)
        finally:
            self.breaker.give_back(ticket)
        return Done(job, outcome, sent_at, self.clock.now(), probe)

    def give_back(self, job: Job) -> Done:
        """Decide not to send: no attempt has been made, and another claim may follow at once."""
        now = self.clock.now()
        return Done(job, None, now, now)

    async def _try(self, job: Job) -> Outcome:
        try:
            return await time(self.metrics.external_api_duration.labels(API), self.channel.send(letter_for(job.claim)))
        except Exception as error:
            # One message that a channel cannot handle must not end the worker.
            log.exception("message.send_crashed", message_id=str(job.claim.id))
            reason = f"unexpected {type(error).__name__} while sending"
            return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, outage=False)
