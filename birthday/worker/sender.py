"""Step 3b, send: one greeting, one try, if the circuit lets it through and the lease is long enough."""

import time

import structlog
from prometheus_client import Counter

from birthday.channels import Channel, Delivered, Outcome, Permanent, Temporary, Unable
from birthday.channels.breaker import Sending, never_open
from birthday.clock import Clock
from birthday.content import RenderError
from birthday.core.message import ErrorType
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing
from birthday.worker.jobs import Done, Job, UnsubscribeUrl, greeting_for, is_failure, is_unsent, no_url
from birthday.worker.pulse import Pulse
from birthday.worker.shortage import Shortage

log = structlog.get_logger()


class Sender:
    """Sends greetings for one worker."""

    def __init__(
        self,
        channel: Channel,
        clock: Clock,
        metrics: Metrics,
        tracing: Tracing = NO_TRACING,
        unsubscribe_url: UnsubscribeUrl = no_url,
    ) -> None:
        """Keep what is passed in. The circuit breaker is that of the channel."""
        self.breaker = channel.breaker or never_open(clock)
        self.shortage = Shortage(clock, metrics)
        self.pulse = Pulse()
        self._channel = channel
        self._clock = clock
        self._metrics = metrics
        self._tracing = tracing
        self._unsubscribe_url = unsubscribe_url
        self._duration = metrics.external_api_duration.labels(channel.api)
        self._calls: dict[int | str, Counter] = {}

    @property
    def allowance(self) -> int | None:
        """How many sends at a time circuit and shortage allow; None means any number."""
        return 1 if self.shortage.lacks else self.breaker.allowance

    async def send(self, job: Job) -> Done:
        """Send a claimed message, unless the circuit is open or the lease could run out before the answer."""
        # The clock of the event loop. To look up the loop costs a call of the system each time.
        began_at = time.monotonic()
        ticket = None if began_at > job.send_by or self.shortage.pausing else self.breaker.admit()
        if ticket is None:
            return self.give_back(job)
        claim, sent_at = job.claim, self._clock.now()
        uncounted = self.breaker.allowance is not None
        span = self._tracing.process(claim, claim.attempt)
        try:
            with span:
                outcome = await self._try(job, began_at)
            if is_unsent(outcome):
                # That says nothing about the service.
                return Done(job, outcome, sent_at, self._clock.now(), span=span)
            sending = Sending(claim.id, sent_at, claim.failed_at, claim.blamed)
            own = is_failure(outcome) and self.breaker.is_own(sending, outcome)
            uncounted |= not self.breaker.record(ticket, outcome, sending)
        finally:
            self.breaker.give_back(ticket)
        alone = self.breaker.refuses_only(claim.id)
        return Done(job, outcome, sent_at, self._clock.now(), uncounted, own, alone, span)

    def give_back(self, job: Job) -> Done:
        """Return the job unsent. No attempt has been made, and the message can be claimed again at once."""
        now = self._clock.now()
        return Done(job, None, now, now)

    async def _try(self, job: Job, began_at: float) -> Outcome:
        outcome = await self._attempt(job, began_at)
        if isinstance(outcome, Unable):
            if outcome.lacks is not None:
                self.shortage.meet(outcome.lacks, outcome.reason)
        elif not is_unsent(outcome):
            self.shortage.end()
            self._count(outcome)
        return outcome

    async def _attempt(self, job: Job, began_at: float) -> Outcome:
        try:
            greeting = greeting_for(job, self._unsubscribe_url)
            with self._duration.time():
                outcome = await self._channel.send(greeting)
        except RenderError as error:
            return Permanent(ErrorType.VALIDATION_ERROR, str(error), handed_over=False)
        except MemoryError:
            return Unable("out of memory", lacks="memory", answer_lost=True)
        except Exception as error:
            # One message that a channel cannot handle must not end the worker.
            log.exception("message.send_crashed", message_id=str(job.claim.id))
            reason = f"unexpected {type(error).__name__} while sending"
            outcome = Temporary(ErrorType.EXTERNAL_API_ERROR, reason, outage=False, answer_lost=True)
        if isinstance(outcome, Temporary) and outcome.status is None and self.pulse.stood_still_since(began_at):
            return Unable(f"this process stood still meanwhile; {outcome.reason}", answer_lost=outcome.handed_over)
        return outcome

    def _count(self, outcome: Outcome) -> None:
        late = isinstance(outcome, Temporary) and outcome.error_type is ErrorType.TIMEOUT
        if late:
            self._metrics.http_client_timeouts.inc()
        without_status = "timeout" if late else "none" if isinstance(outcome, Delivered) else "error"
        status = outcome.status or without_status
        if status not in self._calls:
            # Cached, because looking up a label takes longer than counting.
            self._calls[status] = self._metrics.external_api_calls.labels(self._channel.api, str(status))
        self._calls[status].inc()
