"""Step 3c, settle: store outcomes, then report them, then tell the queue. Always in this order (invariant 4)."""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import Final, TypeAlias

import asyncpg
import structlog

from birthday.broker import Broker, Consumer, Delivery
from birthday.clock import Clock
from birthday.core.message import ON_TIME, Status
from birthday.core.retry import RetryPolicy
from birthday.core.template import TemplateKey, template_name
from birthday.errors import UnavailableError
from birthday.store.refusals import Sifting
from birthday.store.settling import Failure, Settled, Settlement, settle
from birthday.telemetry.label_values import LabelValues
from birthday.telemetry.metrics import Metrics
from birthday.worker.jobs import Done, Received, decide, is_unsent, refused
from birthday.worker.retrying import retry_outage, retry_publish

log = structlog.get_logger()

Stored: TypeAlias = tuple[Done, Settlement]
"""An outcome that is stored, of which the queue does not know yet."""

MOST_TEMPLATES: Final = 200
"""How many templates the metrics name."""


@dataclass(frozen=True, slots=True)
class Settler:
    """Stores and reports outcomes for one worker."""

    pool: asyncpg.Pool
    broker: Broker
    clock: Clock
    metrics: Metrics
    retry: RetryPolicy
    random: Random
    names: LabelValues = field(default_factory=partial(LabelValues, MOST_TEMPLATES))

    async def store(self, batch: Sequence[Done]) -> list[Stored]:
        """Store the outcomes of ``batch`` in one statement, and report them. Waits for the database if it is away.

        Returns:
            What the caller must hand to ``tell_queue``, and then to ``publish``.
        """
        # In order of id, as claims lock messages: two statements with the same messages then cannot deadlock.
        in_order = sorted(batch, key=lambda done: done.job.claim.id)
        pairs, settled = await self._execute([(done, decide(done, self.retry, self.random)) for done in in_order])
        first_sent = {(one.id, one.lease_until): one.first_sent for one in settled}
        ours = []
        for done, settlement in pairs:
            if (settlement.id, settlement.lease_until) in first_sent:
                ours.append((done, settlement))
            else:
                log.warning("message.taken_over", message_id=str(settlement.id), attempt=done.job.claim.attempt)
                done.span.settle("taken_over")
                await _tell(done.job.received.consumer.ack([done.job.received.delivery]))
        self._count_first_sent(done for done, one in ours if first_sent[one.id, one.lease_until])
        self._report(ours)
        return ours

    async def publish(self, stored: Sequence[Stored]) -> bool:
        """Publish retries, and ack their deliveries after that. Waits for the queue while the deliveries can be acked.

        Returns:
            False if a retry could not be published: its delivery must be given back, and will come again.
        """
        retries = [pair for pair in stored if pair[1].next_attempt_at is not None]
        published = await asyncio.gather(*(self._publish_delayed(done, settlement) for done, settlement in retries))
        await _ack([done.job.received for (done, _), ok in zip(retries, published, strict=True) if ok])
        return all(published)

    async def _execute(self, pairs: Sequence[tuple[Done, Settlement]]) -> tuple[Sequence[Stored], Sequence[Settled]]:
        """Store outcomes. If the database refuses one, store a failure instead, so that the rest is not held up."""
        storing = Sifting("settle", [settlement for _, settlement in pairs], partial(settle, self.pool))
        await retry_outage("settle", storing.run, self.clock, self.random)
        if not storing.refused:
            return pairs, storing.results
        failures = {settlement: refused(settlement, error) for settlement, error in storing.refused}
        failing = Sifting("settle", list(failures.values()), partial(settle, self.pool))
        await retry_outage("settle", failing.run, self.clock, self.random)
        for failure, error in failing.refused:
            # The failure is refused too. The lease runs out, and the janitor finds the message.
            log.error("message.unsettled", message_id=str(failure.id), error=error)
        lost = {failure.id for failure, _ in failing.refused}
        replaced = [(done, failures.get(settlement, settlement)) for done, settlement in pairs]
        for done, settlement in replaced:
            if settlement.id in lost:
                done.span.settle("unsettled")
                await _tell(done.job.received.consumer.ack([done.job.received.delivery]))
        return [pair for pair in replaced if pair[1].id not in lost], [*storing.results, *failing.results]

    def _count_first_sent(self, sent: Iterable[Done]) -> None:
        hours: Counter[int] = Counter()
        templates: Counter[TemplateKey | None] = Counter()
        for done in sent:
            hours[done.sent_at.hour] += 1
            templates[done.job.claim.template] += 1
        for hour, count in hours.items():
            self.metrics.messages_sent.labels(f"{hour:02}").inc(count)
        for key, count in templates.items():
            self.metrics.message_template_usage.labels(self._label(key)).inc(count)

    def _label(self, key: TemplateKey | None) -> str:
        return "none" if key is None else self.names.label(template_name(key.message_type, key.locale))

    def _report(self, stored: Iterable[Stored]) -> None:
        """Count and log outcomes. Counts are added up first, because a batch may have hundreds of messages."""
        metrics = self.metrics
        delivered = failed = on_time = 0
        by_type: Counter[tuple[str, Status]] = Counter()
        for done, settlement in stored:
            failure = settlement.failure
            done.span.settle(settlement.status, failure.error_type if failure else None)
            if settlement.status is not Status.RETRYING:
                by_type[done.job.claim.message_type, settlement.status] += 1
            if settlement.status is Status.DELIVERED:
                delivered += 1
                lateness = settlement.settled_at - done.job.claim.scheduled_at
                metrics.message_delivery_duration.observe(lateness.total_seconds())
                on_time += lateness <= ON_TIME
                _log_delivered(done, lateness)
            elif failure is not None:
                failed += settlement.status is Status.FAILED
                self._report_failure(done, settlement.status, failure)
        metrics.messages_delivered.inc(delivered)
        metrics.messages_on_time.inc(on_time)
        metrics.messages_processed.inc(delivered + failed)
        metrics.birthdays_processed.inc(delivered + failed)
        for (message_type, status), count in by_type.items():
            metrics.messages_by_type.labels(metrics.types.label(message_type), status).inc(count)

    def _report_failure(self, done: Done, status: Status, failure: Failure) -> None:
        error_type, reason = failure.error_type.value, failure.detail
        claim = done.job.claim
        fields = {"message_id": str(claim.id), "attempt": claim.attempt, **done.span.log_fields}
        if is_unsent(done.outcome):
            self.metrics.message_render_failures.labels(self._label(claim.template)).inc()
        if status is Status.FAILED:
            self.metrics.messages_failed.labels(error_type).inc()
            action = "dead-lettered to the dlq"
            log.error("message.failed", **fields, error_type=error_type, reason=reason, action=action)
        else:
            self.metrics.message_retries.labels(error_type).inc()
            log.warning("message.retrying", **fields, error_type=error_type, reason=reason)

    async def tell_queue(self, stored: Sequence[Stored]) -> int:
        """Ack what is done, and reject what has failed; return how many that were. The others are retries."""
        failed = [done.job.received for done, settlement in stored if settlement.status is Status.FAILED]
        finished = [
            done.job.received
            for done, settlement in stored
            if settlement.status is not Status.FAILED and settlement.next_attempt_at is None
        ]
        await _ack(finished)
        for consumer, deliveries in _by_consumer(failed).items():
            await _tell(consumer.reject(deliveries))
        return len(failed) + len(finished)

    async def _publish_delayed(self, done: Done, settlement: Settlement) -> bool:
        async def publish() -> None:
            delay = (settlement.next_attempt_at or settlement.settled_at) - self.clock.now()
            await self.broker.publish([settlement.id], max(delay, timedelta()))

        try:
            await retry_publish(publish, done.job.received.consumer, self.clock, self.random)
        except UnavailableError as error:
            log.warning("worker.retry_unpublished", message_id=str(settlement.id), error=str(error))
            return False
        return True


def _log_delivered(done: Done, lateness: timedelta) -> None:
    claim = done.job.claim
    if lateness > ON_TIME:
        late_seconds = round(lateness.total_seconds())
        fields = {"message_id": str(claim.id), "attempt": claim.attempt, **done.span.log_fields}
        log.info("message.delivered_late", **fields, late_seconds=late_seconds)
    elif log.is_enabled_for(logging.DEBUG):
        # Checked first, because formatting an id costs as much as the rest of this function.
        log.debug("message.delivered", message_id=str(claim.id), attempt=claim.attempt, **done.span.log_fields)


def _by_consumer(some: Sequence[Received]) -> dict[Consumer, list[Delivery]]:
    deliveries: defaultdict[Consumer, list[Delivery]] = defaultdict(list)
    for received in some:
        deliveries[received.consumer].append(received.delivery)
    return deliveries


async def _ack(some: Sequence[Received]) -> None:
    for consumer, deliveries in _by_consumer(some).items():
        await _tell(consumer.ack(deliveries))


async def _tell(telling: Awaitable[None]) -> None:
    """Ack or reject. If the connection is gone, the queue redelivers, and the next claim finds the message settled."""
    try:
        await telling
    except UnavailableError as error:
        log.warning("worker.ack_lost", error=str(error))
