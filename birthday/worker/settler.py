"""Step 3c, settle: store outcomes, then report them, then tell the queue. In this order, always (invariant 4)."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Sequence
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
from birthday.worker.letters import Done, Received, decide
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
            (one.id, one.lease_until): one
            for one in await outlast("settle", lambda: settle(self.pool, settlements), self.clock, self.random)
        }
        for done, settlement in pairs:
            settled = stored.get((settlement.id, settlement.lease_until))
            if settled is None:
                log.warning("message.taken_over", message_id=str(settlement.id), attempt=done.job.claim.attempt)
            else:
                self._report(done, settlement, first_sent=settled.first_sent)
        ours = [pair for pair in pairs if (pair[1].id, pair[1].lease_until) in stored]
        for done, _ in pairs:
            if (done.job.claim.id, done.job.claim.lease_until) not in stored:
                await _tell(done.job.received.consumer.ack([done.job.received.delivery]))
        return await self._tell_queue(ours)

    def _report(self, done: Done, settlement: Settlement, *, first_sent: bool) -> None:
        metrics, scheduled_at = self.metrics, done.job.claim.scheduled_at
        if first_sent:
            metrics.messages_sent.labels(f"{done.sent_at.hour:02}").inc()
        fields = {"message_id": str(settlement.id), "attempt": done.job.claim.attempt}
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
        elif settlement.failure is not None:
            error_type, reason = settlement.failure.error_type.value, settlement.failure.detail
            if settlement.status is Status.FAILED:
                metrics.messages_failed.labels(error_type).inc()
                metrics.messages_processed.inc()
                log.error("message.failed", **fields, error_type=error_type, reason=reason)
            else:
                metrics.message_retries.labels(error_type).inc()
                log.warning("message.retrying", **fields, error_type=error_type, reason=reason)

    async def _tell_queue(self, pairs: Sequence[tuple[Done, Settlement]]) -> bool:
        """Publish what is to be tried again, then ack it and what is done, and reject what has failed."""
        unpublished = await self._publish_again([settlement for _, settlement in pairs])
        failed = [done.job.received for done, settlement in pairs if settlement.status is Status.FAILED]
        finished = [
            done.job.received
            for done, settlement in pairs
            if settlement.status is not Status.FAILED and settlement.id not in unpublished
        ]
        for consumer, deliveries in _by_consumer(finished).items():
            await _tell(consumer.ack(deliveries))
        for consumer, deliveries in _by_consumer(failed).items():
            await _tell(consumer.reject(deliveries))
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


def _by_consumer(some: Sequence[Received]) -> dict[Consumer, list[Delivery]]:
    deliveries: defaultdict[Consumer, list[Delivery]] = defaultdict(list)
    for received in some:
        deliveries[received.consumer].append(received.delivery)
    return deliveries


async def _tell(telling: Awaitable[None]) -> None:
    """Tell one consumer. If its connection is gone, the queue gives what it held to another, who finds it settled."""
    try:
        await telling
    except UnavailableError as error:
        log.warning("worker.ack_lost", error=str(error))
