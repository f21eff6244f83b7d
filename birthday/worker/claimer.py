"""Step 3a, claim: turn queue deliveries into messages that this worker holds.

Input: deliveries, some of which may be duplicates, unknown or malformed. Result: messages that may be sent are
``sending`` under a lease. The other deliveries are acked, rejected or delayed, each for a reason.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from random import Random
from uuid import UUID

import asyncpg
import structlog

from birthday.broker import Broker, Consumer, Delivery
from birthday.clock import Clock
from birthday.core.message import PENDING, ErrorType, Status
from birthday.operations.pauses import Pauses
from birthday.store.claims import Claim, Unclaimed, cancel, claim, give_up, read_unclaimed
from birthday.store.connection import DATABASE_ERRORS, stay_cancelled
from birthday.store.refusals import Sifting, fail_refused
from birthday.store.watermarks import request_sweep
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing
from birthday.worker.probes import Probes
from birthday.worker.retrying import retry_outage, retry_publish
from birthday.worker.texts import Text, Texts

log = structlog.get_logger()

_SOON = timedelta(seconds=1)
_LATER = timedelta(minutes=1)
"""How often to look whether the type of a message in the queue is still paused."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Claims, each with what it says, and the deliveries that were not claimed.

    ``claimed_at`` is the loop's time before the first claim.
    """

    claimed: list[tuple[Delivery, Claim, Text | None]]
    rest: dict[UUID, Delivery]
    claimed_at: float


@dataclass(frozen=True, slots=True)
class Claimer:
    """Claims messages for one worker. ``lease`` is how long a claim holds."""

    pool: asyncpg.Pool
    broker: Broker
    clock: Clock
    metrics: Metrics
    pauses: Pauses
    catch_up: timedelta
    lease: timedelta
    random: Random
    texts: Texts
    tracing: Tracing = NO_TRACING
    repeat_unknown: bool = True
    """Whether messages that a dead worker was sending may be sent again."""

    def probes(self) -> Probes:
        """Return an empty collection of probe candidates for one consumer."""
        return Probes(self.pool, self.broker, self.clock, self.random)

    async def claim_batch(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> Batch:
        """Claim the messages that may be sent. The caller must then hand ``Batch.rest`` to ``dispose_of``.

        Raises:
            UnavailableError: the queue is gone. Nothing is lost: the queue redelivers, and the leases run out.
        """
        by_id = await self._sort_out(consumer, deliveries)
        if not by_id:
            return Batch([], {}, 0)
        by_hand = [message_id for message_id, delivery in by_id.items() if delivery.by_hand]
        claimed_at = 0.0

        async def try_to_claim(ids: Sequence[UUID]) -> list[Claim]:
            nonlocal claimed_at
            began = asyncio.get_running_loop().time()
            now = self.clock.now()
            late, paused, repeat = now - self.catch_up, self.pauses.paused, self.repeat_unknown
            claims = await claim(self.pool, ids, by_hand, now, late, self.lease, paused, repeat_unknown=repeat)
            # If the batch is claimed in parts, the first lease runs out first.
            claimed_at = claimed_at or began
            return claims

        claiming = Sifting("claim", list(by_id), try_to_claim)
        with self.tracing.receive() as span:
            await retry_outage("claim", claiming.run, self.clock, self.random)
            span.hold(claiming.results)
        await self._fail_refused(consumer, by_id, claiming.refused)
        claims = claiming.results
        texts = await retry_outage("claim", partial(self.texts.load, claims), self.clock, self.random)
        claimed = [(by_id.pop(one.id), one, texts.get(one.template) if one.template else None) for one in claims]
        return Batch(claimed, by_id, claimed_at)

    async def _fail_refused(
        self, consumer: Consumer, deliveries: dict[UUID, Delivery], refused: Iterable[tuple[UUID, Exception]]
    ) -> None:
        """Fail messages that the database refuses to move, and take them out of ``deliveries``."""
        for message_id, error in refused:
            delivery = deliveries.pop(message_id)
            try:
                fail = partial(fail_refused, self.pool, message_id, self.clock.now(), error)
                failed = await retry_outage("fail", fail, self.clock, self.random)
            except DATABASE_ERRORS:
                stay_cancelled()
                failed = None
            if failed is not None:
                self.metrics.messages_failed.labels(ErrorType.PERMANENT_FAILURE.value).inc()
                self.metrics.messages_by_type.labels(self.metrics.types.label(failed), Status.FAILED).inc()
                self.metrics.messages_processed.inc()
                self.metrics.birthdays_processed.inc()
                error_type = ErrorType.PERMANENT_FAILURE.value
                log.error("message.failed", message_id=str(message_id), error_type=error_type, error=error)
                await consumer.reject([delivery])
            else:
                # The database refuses this too, or another worker has the message. If it stays open, the janitor finds
                # it.
                log.error("message.refused", message_id=str(message_id), error=error)
                await consumer.ack([delivery])

    async def _sort_out(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> dict[UUID, Delivery]:
        """Return one delivery for each message id. Reject malformed deliveries, and ack copies within the batch."""
        # An operator's copy counts if there is one: only that brings a failed message back.
        by_id = {one.message_id: one for one in deliveries if one.by_hand and one.message_id is not None}
        malformed = [delivery for delivery in deliveries if delivery.message_id is None]
        copies = [
            delivery
            for delivery in deliveries
            if delivery.message_id is not None and by_id.setdefault(delivery.message_id, delivery) is not delivery
        ]
        if malformed:
            for delivery in malformed:
                size_bytes = delivery.size_bytes or len(delivery.body)
                log.warning("message.malformed", size_bytes=size_bytes, action="dead-lettered to the dlq")
            await consumer.reject(malformed)
        if copies:
            log.info("message.duplicates", copies=len(copies), action="acked")
            await consumer.ack(copies)
        self.metrics.messages_processed.inc(len(malformed) + len(copies))
        return by_id

    async def dispose_of(self, consumer: Consumer, rest: Mapping[UUID, Delivery]) -> None:
        """Ack, reject or delay the deliveries that were not claimed.

        Raises:
            UnavailableError: the queue is gone. It redelivers what has not been disposed of.
        """
        if not rest:
            return
        now = self.clock.now()
        left = dict(rest)
        reading = Sifting("claim", list(left), partial(read_unclaimed, self.pool))
        await retry_outage("claim", reading.run, self.clock, self.random)
        await self._fail_refused(consumer, left, reading.refused)
        states = {state.id: state for state in reading.results}
        ended, refused = await self._end_what_is_over(reading.results, now)
        await self._fail_refused(consumer, left, refused)
        finished, rejected = [], []
        delayed: dict[UUID, timedelta] = {}
        for message_id, delivery in left.items():
            state = states.get(message_id)
            status = ended.get(message_id) or (state.status if state else None)
            delay = self._delay(state, now) if state and message_id not in ended else None
            if delay is not None:
                delayed[message_id] = delay
            elif status is None or status is Status.FAILED:
                rejected.append(delivery)
                event = "message.unknown" if status is None else "message.failed_already"
                log.warning(event, message_id=str(message_id), action="dead-lettered to the dlq")
            else:
                finished.append(delivery)
                log.debug("message.skipped", message_id=str(message_id), status=status.value)
        # Concurrently: otherwise a worker that takes over from a dead one would wait for hundreds of confirms in turn.
        await asyncio.gather(
            *(
                retry_publish(partial(self.broker.publish, [message_id], delay), consumer, self.clock, self.random)
                for message_id, delay in delayed.items()
            )
        )
        await consumer.ack([*finished, *(rest[message_id] for message_id in delayed)])
        await consumer.reject(rejected)
        self.metrics.messages_processed.inc(len(finished) + len(rejected))

    async def _end_what_is_over(
        self, unclaimed: Sequence[Unclaimed], now: datetime
    ) -> tuple[dict[UUID, Status], list[tuple[UUID, Exception]]]:
        """Cancel stale messages. Fail those that a dead worker was sending and that may not be sent again.

        Returns the new status of each ended message, and the messages that the database refuses to end.
        """
        stale = [one.id for one in unclaimed if not one.current and one.status in PENDING]
        held = [one.id for one in unclaimed if one.status is Status.SENDING and not one.lease]
        late = now - self.catch_up
        cancelling = Sifting("cancel", stale, lambda ids: cancel(self.pool, ids, now))
        end_unknown = partial(give_up, self.pool, now=now, late=late, repeat_unknown=self.repeat_unknown)
        giving_up = Sifting("give up", held, lambda ids: end_unknown(ids=ids))
        await retry_outage("cancel", cancelling.run, self.clock, self.random)
        await retry_outage("give up", giving_up.run, self.clock, self.random)
        cancelled, failed = cancelling.results, giving_up.results
        suppressed = sum(one.suppressed for one in cancelled)
        if len(cancelled) > suppressed:
            # If a user moved while the message was being sent and given back, no other message is planned yet.
            await retry_outage("cancel", lambda: request_sweep(self.pool), self.clock, self.random)
        self.metrics.messages_cancelled.inc(len(cancelled))
        self.metrics.messages_suppressed.inc(suppressed)
        self.metrics.messages_failed.labels(ErrorType.PERMANENT_FAILURE.value).inc(len(failed))
        self.metrics.birthdays_processed.inc(len(failed))
        for one in cancelled:
            reason = "the user is suppressed" if one.suppressed else "the user is gone or has moved"
            log.info("message.cancelled", message_id=str(one.id), reason=reason)
        types = {one.id: one.message_type for one in unclaimed}
        for message_id in failed:
            message_type = self.metrics.types.label(types[message_id])
            self.metrics.messages_by_type.labels(message_type, Status.FAILED).inc()
            error_type = ErrorType.PERMANENT_FAILURE.value
            reason = "a worker died while sending it"
            log.error("message.failed", message_id=str(message_id), error_type=error_type, reason=reason)
        ended = {one.id: Status.CANCELLED for one in cancelled} | dict.fromkeys(failed, Status.FAILED)
        return ended, [*cancelling.refused, *giving_up.refused]

    def _delay(self, state: Unclaimed, now: datetime) -> timedelta | None:
        """Return after how long to look at a message again, or None if this delivery is not needed any more."""
        paused = state.message_type in self.pauses.paused
        if state.status is Status.SENDING:
            return _LATER if paused and not state.lease else max(state.lease, _SOON)
        if state.status not in PENDING or state.due_since <= now - self.catch_up:
            # The janitor expires what is too late.
            return None
        if state.status is Status.SCHEDULED and state.ready_at > now:
            # The dispatcher publishes it when it is due.
            return None
        return _LATER if paused else max(state.ready_at - now, _SOON)
