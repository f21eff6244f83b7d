"""Tell a receiver of outcomes and opt-outs: at least once, with the same id, and never before they are committed.

One process at a time sends, under a lease. Events of messages are made from the feed, so they cost the worker nothing;
those of users are written by a trigger. While all sends fail, one event at a time is tried, a new one before those that
have failed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Final, Protocol
from uuid import UUID, uuid4

import asyncpg
import structlog

from birthday.clock import CheckedClock
from birthday.core.events import Accepted, Answer, Event, Gone, Refused
from birthday.errors import UnavailableError
from birthday.store.connection import DATABASE_ERRORS, borrow, is_outage, stay_cancelled
from birthday.store.events import (
    hold_stream,
    make_events,
    postpone_events,
    read_due_events,
    release_stream,
    remove_events,
    stop_stream,
)
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

BATCH: Final = 200
CONCURRENCY: Final = 10
MOST_WAITING: Final = 10_000
"""No more events are made of the feed while so many are waiting, such as some that the receiver refuses."""
ROUND_SECONDS: Final = 10.0
"""For how long a batch begins sends. With the time limit of one send, it must end before the lease does."""
LEASE: Final = timedelta(seconds=30)
POLL_SECONDS: Final = 1.0
STANDBY_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 300.0
LEAVE_SECONDS: Final = 1.0


class Receiver(Protocol):
    """Who is told of events."""

    name: str
    """Tells it from another one."""

    async def post(self, event: Event) -> Answer:
        """Send an event once, within a time limit. Never raises because of the other side."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass(slots=True)
class EventSender:
    """Sends events to one receiver while this process has the lease."""

    pool: asyncpg.Pool
    receiver: Receiver
    metrics: Metrics
    clock: CheckedClock
    random: Random
    holder: UUID = field(default_factory=uuid4)
    failed_rounds: int = 0
    """How many batches in a row have failed as a whole."""
    stopped: bool = False

    async def run(self) -> None:
        """Send events until cancelled."""
        try:
            while True:
                await self.clock.wait_until(right=True)
                try:
                    pause = await self.send_once(self.clock.now())
                except (UnavailableError, *DATABASE_ERRORS) as error:
                    stay_cancelled()
                    self.metrics.collector_errors.labels("events").inc()
                    # What is no outage does not end by itself.
                    report = log.debug if isinstance(error, UnavailableError) or is_outage(error) else log.error
                    report("events.unavailable", error=error)
                    pause = STANDBY_SECONDS
                await self.clock.sleep(pause)
        finally:
            self.metrics.events_lag_seconds.set(None)
            await self._leave()

    async def send_once(self, now: datetime) -> float:
        """Send a batch of what is due, if this process has the lease; return how many seconds to wait before the next.

        Raises:
            UnavailableError: if the database cannot be used. What has been sent is sent again, with the same id.
        """
        async with borrow(self.pool) as connection:
            stream = await hold_stream(connection, self.holder, self.receiver.name, LEASE)
            if stream is None:
                self.metrics.events_lag_seconds.set(None)
                return STANDBY_SECONDS
            lag = now - (stream.oldest_at or now)
            self.metrics.events_lag_seconds.set(max(lag.total_seconds(), 0))
            self._note_stop(stopped=stream.stopped)
            if stream.stopped:
                return STANDBY_SECONDS
            if stream.waiting < MOST_WAITING:
                await make_events(connection, self.holder, stream.after, now, BATCH)
            due = await read_due_events(connection, now, 1 if self.failed_rounds else BATCH)
        if not due:
            return POLL_SECONDS
        answers = await self._post(due)
        await self._store(answers, now)
        return self._pause_after([answer for _, answer in answers])

    async def _post(self, events: Sequence[Event]) -> list[tuple[Event, Answer]]:
        """Send events, a few at a time. Those for which the time is too short are left out."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ROUND_SECONDS
        slots = asyncio.Semaphore(CONCURRENCY)
        answers: list[tuple[Event, Answer]] = []

        async def post(event: Event) -> None:
            async with slots:
                if loop.time() < until:
                    answers.append((event, await self.receiver.post(event)))

        async with asyncio.TaskGroup() as sending:
            for event in events:
                sending.create_task(post(event))
        return answers

    async def _store(self, answers: Sequence[tuple[Event, Answer]], now: datetime) -> None:
        sent = [event for event, answer in answers if isinstance(answer, Accepted)]
        later: list[tuple[UUID, datetime]] = []
        given_up: list[tuple[Event, Refused]] = []
        for event, answer in answers:
            if not isinstance(answer, Refused):
                continue
            at = event.next_attempt(now, answer.retry_after, self.random)
            if at is None:
                given_up.append((event, answer))
            else:
                later.append((event.id, at))
        async with borrow(self.pool) as connection, connection.transaction():
            await remove_events(connection, [event.id for event in (*sent, *(event for event, _ in given_up))])
            await postpone_events(connection, later, now)
            if any(isinstance(answer, Gone) for _, answer in answers):
                await stop_stream(connection, self.holder, now)
        for event in sent:
            self.metrics.events_sent.labels(event.type).inc()
        for event, refusal in given_up:
            self.metrics.events_failed.labels(event.type).inc()
            log.error("event.failed", event_id=str(event.id), event_type=event.type, reason=refusal.reason)

    def _pause_after(self, answers: Sequence[Answer]) -> float:
        refused = [answer for answer in answers if isinstance(answer, Refused)]
        if len(refused) < len(answers):
            if self.failed_rounds:
                log.info("events.accepted_again")
            self.failed_rounds = 0
            return 0
        self.failed_rounds += 1
        pause = min(POLL_SECONDS * 2.0 ** min(self.failed_rounds, 20), LONGEST_PAUSE_SECONDS)
        log.warning("events.refused", reason=refused[0].reason, events=len(refused), next_attempt_seconds=pause)
        return pause

    def _note_stop(self, *, stopped: bool) -> None:
        if stopped and not self.stopped:
            log.error("events.stopped", reason="the receiver has answered 410: it wants no more")
        self.stopped = stopped

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self.receiver.close()
                async with borrow(self.pool) as connection:
                    await release_stream(connection, self.holder)
        except (TimeoutError, UnavailableError, *DATABASE_ERRORS) as error:
            log.debug("events.not_released", error=error)
