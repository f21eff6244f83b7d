"""Step 3a, claim: from queue deliveries to messages that this worker holds.

Before: deliveries, each of which may be a duplicate, a stranger or nonsense. After: those that may be sent are
``sending`` under a lease; the rest have been acked, rejected or delayed, each with a reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg
import structlog

from birthday.broker import Broker, Consumer, Delivery
from birthday.clock import Clock
from birthday.core.message import PENDING, Status
from birthday.store.messages import Claim, Unclaimed, cancel, claim, read_unclaimed
from birthday.telemetry.metrics import Metrics
from birthday.worker.patience import outlast

log = structlog.get_logger()

_SOON = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Intake:
    """Claims messages for one worker. ``lease`` is how long a claim holds."""

    pool: asyncpg.Pool
    broker: Broker
    clock: Clock
    metrics: Metrics
    catch_up: timedelta
    lease: timedelta
    random: Random

    async def claim_batch(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> list[tuple[Delivery, Claim]]:
        """Claim what may be sent, and dispose of every other delivery.

        Raises:
            UnavailableError: the queue is gone. Nothing is lost: queue or lease brings all of it back.
        """
        by_id = await self._sort_out(consumer, deliveries)
        if not by_id:
            return []
        ids = list(by_id)
        fresh = [message_id for message_id, delivery in by_id.items() if not delivery.redelivered]
        now = self.clock.now()
        claims = await outlast(
            "claim",
            lambda: claim(self.pool, ids, fresh, now, now - self.catch_up, self.lease),
            self.clock,
            self.random,
        )
        claimed = [(by_id.pop(one.id), one) for one in claims]
        if by_id:
            await self._dispose(consumer, by_id, now)
        return claimed

    async def _sort_out(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> dict[UUID, Delivery]:
        """Return one delivery for each message id; reject what is no message, ack a second copy in the same batch."""
        by_id: dict[UUID, Delivery] = {}
        malformed = [delivery for delivery in deliveries if delivery.message_id is None]
        copies = [
            delivery
            for delivery in deliveries
            if delivery.message_id is not None and by_id.setdefault(delivery.message_id, delivery) is not delivery
        ]
        if malformed:
            for delivery in malformed:
                log.warning("message.malformed", size_bytes=len(delivery.body), action="dead-lettered to the dlq")
            await consumer.reject(malformed)
        if copies:
            log.info("message.duplicates", copies=len(copies), action="acked")
            await consumer.ack(copies)
        self.metrics.messages_processed.inc(len(malformed) + len(copies))
        return by_id

    async def _dispose(self, consumer: Consumer, by_id: dict[UUID, Delivery], now: datetime) -> None:
        unclaimed = await outlast("claim", lambda: read_unclaimed(self.pool, list(by_id)), self.clock, self.random)
        states = {state.id: state for state in unclaimed}
        stale = [one.id for one in states.values() if not one.current and one.status in PENDING]
        cancelled = await outlast("cancel", lambda: cancel(self.pool, stale, now), self.clock, self.random)
        self.metrics.messages_cancelled.inc(len(cancelled))
        for message_id in cancelled:
            log.info("message.cancelled", message_id=str(message_id), reason="the user is gone or has moved")
        finished, rejected = [], []
        for message_id, delivery in by_id.items():
            state = states.get(message_id)
            delay = None if message_id in cancelled else self._delay(state, now)
            if delay is not None:
                await self.broker.publish([message_id], delay)
                await consumer.ack([delivery])
            elif state is None or state.status is Status.FAILED:
                rejected.append(delivery)
                log.warning(
                    "message.unknown" if state is None else "message.redelivered_after_failure",
                    message_id=str(message_id),
                    action="dead-lettered to the dlq",
                )
            else:
                finished.append(delivery)
                log.debug("message.skipped", message_id=str(message_id), status=state.status.value)
        await consumer.ack(finished)
        await consumer.reject(rejected)
        self.metrics.messages_processed.inc(len(finished) + len(rejected))

    def _delay(self, state: Unclaimed | None, now: datetime) -> timedelta | None:
        """Return how much later to look at a message again, or None if this delivery has nothing more to bring."""
        if state is None or not (state.status in PENDING or state.status is Status.SENDING):
            return None
        if state.status is Status.SENDING:
            return max(state.lease, _SOON)
        if state.due_since <= now - self.catch_up:
            # The janitor expires it.
            return None
        if state.status is Status.SCHEDULED and state.ready_at > now:
            # The dispatcher publishes it when it is due.
            return None
        return max(state.ready_at - now, _SOON)
