"""Step 3c, settle: store outcomes, then report them, then tell the queue. In this order, always (invariant 4)."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from uuid import UUID

import asyncpg
import structlog

from birthday.broker import Broker, Consumer, Delivery
from birthday.clock import Clock
from birthday.core.message import ON_TIME, Status
from birthday.core.retry import RetryPolicy
from birthday.errors import UnavailableError
from birthday.store.messages import Settlement, settle
from birthday.telemetry.metrics import Metrics
from birthday.worker.letters import Done, decide
from birthday.worker.patience import outlast

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settler:
    """Stores and reports outcomes for one worker."""

    pool: asyncpg.Pool
    broker: Broker
    clock: Clock
    metrics: Metrics
    retry: RetryPolicy
    random: Random

    async def settle_batch(self, batch: Sequence[Done]) -> bool:
        """Store the outcomes of ``batch`` in one statement, however long the database is away; then ack.

        Returns:
            False if the queue could not be told: its deliveries must be given back, and will come again.
        """
        pairs = [(done, decide(done, self.retry, self.random)) for done in batch]
        settlements = [settlement for _, settlement in pairs]
        stored = {
            one.id: one
            for one in await outlast("settle", lambda: settle(self.pool, settlements), self.clock, self.random)
        }
        for done, settlement in pairs:
            settled = stored.get(settlement.id)
            if settled is None:
                log.warning("message.taken_over", message_id=str(settlement.id), attempt=settlement.attempt)
            else:
                self._report(done, settlement, first_sent=settled.first_sent)
        return await self._tell_queue(pairs, stored.keys())

    def _report(self, done: Done, settlement: Settlement, *, first_sent: bool) -> None:
        metrics, scheduled_at = self.metrics, done.job.claim.scheduled_at
        if first_sent:
            metrics.messages_sent.labels(f"{done.sent_at.hour:02}").inc()
        fields = {"message_id": str(settlement.id), "attempt": settlement.attempt}
        error_type = settlement.error_type.value if settlement.error_type else None
        if settlement.status is Status.DELIVERED:
            lateness = settlement.settled_at - scheduled_at
            metrics.messages_delivered.inc()
            metrics.messages_processed.inc()
            metrics.message_delivery_duration.observe(lateness.total_seconds())
            if lateness <= ON_TIME:
                metrics.messages_on_time.inc()
                log.debug("message.delivered", **fields)
            else:
                log.info("message.delivered_late", **fields, late_seconds=round(lateness.total_seconds()))
        elif settlement.status is Status.FAILED:
            metrics.messages_failed.labels(error_type).inc()
            metrics.messages_processed.inc()
            log.error("message.failed", **fields, error_type=error_type, reason=settlement.error_detail)
        elif settlement.sent_at is not None:
            metrics.message_retries.labels(error_type).inc()
            log.warning("message.retrying", **fields, error_type=error_type, reason=settlement.error_detail)

    async def _tell_queue(self, pairs: Sequence[tuple[Done, Settlement]], stored: Collection[UUID]) -> bool:
        """Publish what is to be tried again, then ack it and what is done, and reject what has failed."""
        acks: defaultdict[Consumer, list[Delivery]] = defaultdict(list)
        rejects: defaultdict[Consumer, list[Delivery]] = defaultdict(list)
        unpublished = await self._publish_again([one for _, one in pairs if one.id in stored])
        for done, settlement in pairs:
            received = done.job.received
            if settlement.id in stored and settlement.status is Status.FAILED:
                rejects[received.consumer].append(received.delivery)
            elif settlement.id not in unpublished:
                acks[received.consumer].append(received.delivery)
        try:
            for consumer, deliveries in acks.items():
                await consumer.ack(deliveries)
            for consumer, deliveries in rejects.items():
                await consumer.reject(deliveries)
        except UnavailableError as error:
            # Whoever receives from this consumer notices too. What is not acked comes again and is found settled.
            log.warning("worker.ack_lost", error=str(error))
        return not unpublished

    async def _publish_again(self, settlements: Sequence[Settlement]) -> set[UUID]:
        """Publish what waits for another attempt; return what could not be published."""
        waiting = [one for one in settlements if one.next_attempt_at is not None]
        results = await asyncio.gather(*(self._publish_delayed(one) for one in waiting))
        return {one.id for one, published in zip(waiting, results, strict=True) if not published}

    async def _publish_delayed(self, settlement: Settlement) -> bool:
        delay = (settlement.next_attempt_at or settlement.settled_at) - self.clock.now()
        try:
            await self.broker.publish([settlement.id], max(delay, timedelta()))
        except UnavailableError as error:
            log.warning("worker.retry_unpublished", message_id=str(settlement.id), error=str(error))
            return False
        return True
