"""Step 3, deliver: the pipeline from the queue to the message service and back.

Input: a queue delivery. Result: its message is ``delivered``, ``failed`` (and dead-lettered) or ``retrying`` (and
queued again, with a delay). This status commits before the delivery is acked. So a crash may repeat work, but never
drops it. A repeated send has the same idempotency key.

It is a stream: the claimer claims ahead in batches, a fixed number of slots send, and one settler stores outcomes in
micro-batches. Slots and settler outlive the consumer. If its connection breaks, messages in flight are still sent and
stored. Only the ack is lost; when the delivery comes again, the claim finds it settled.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from random import Random
from typing import Any, TypeVar

import structlog

from birthday.broker import Broker, Consumer, Delivery
from birthday.channels.breaker import CircuitBreaker, CircuitState
from birthday.clock import CheckedClock
from birthday.errors import UnavailableError
from birthday.operations.pauses import Pauses
from birthday.worker.claimer import Batch, Claimer
from birthday.worker.jobs import Done, Job, Received
from birthday.worker.limits import BATCH, STORING, Limits
from birthday.worker.probes import Probes
from birthday.worker.retrying import RECONNECT
from birthday.worker.sender import Sender
from birthday.worker.settler import Settler

log = structlog.get_logger()

_Result = TypeVar("_Result")

GATHER_SECONDS = 0.005
STEADY_SECONDS = 10.0
"""If a subscription lasted this long, the wait before the next one is short again. Otherwise the wait grows."""
MORE_SECONDS = 0.1
"""How long to wait for the queue to deliver a message that has not failed yet, as a probe."""


class Pipeline:
    """One worker. ``run`` it once; ``stop`` it to drain, and ``hurry`` if that takes too long."""

    def __init__(
        self,
        broker: Broker,
        claimer: Claimer,
        sender: Sender,
        settler: Settler,
        limits: Limits,
        pauses: Pauses,
        clock: CheckedClock,
        random: Random,
    ) -> None:
        """Keep what is passed in; nothing starts before ``run``."""
        self.receiving = False
        self.received = 0
        """How many deliveries have come in. The watchdog compares it over time."""
        self._broker = broker
        self._claimer = claimer
        self._sender = sender
        self._settler = settler
        self._limits = limits
        self._pauses = pauses
        self._clock = clock
        self._random = random
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._outcomes: asyncio.Queue[Done] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._hurrying = False
        self._interrupted = asyncio.Event()
        self._waiting_since: float | None = None
        self._steps: list[float] = []

    def stop(self) -> None:
        """Receive nothing more. ``run`` returns once everything received is sent, stored and acked."""
        self._stopping.set()

    def hurry(self) -> None:
        """After ``stop``: finish the sends that have begun, and give all other messages back to other workers."""
        self._hurrying = True
        self._interrupted.set()

    def resubscribe(self) -> None:
        """Give up the subscription and get a new one. Messages in flight go on."""
        self._interrupted.set()

    @property
    def _held(self) -> bool:
        """Whether nothing may be claimed or sent: an operator has paused it, or the clock is wrong."""
        return self._pauses.held or self._clock.fault is not None

    @property
    def circuit(self) -> CircuitBreaker:
        """The circuit to the message service."""
        return self._sender.breaker

    @property
    def prefetch(self) -> int:
        """How many deliveries the pipeline may hold at a time."""
        return self._limits.prefetch

    @property
    def waiting_seconds(self) -> float:
        """How long the worker has been waiting for the next delivery; 0 if it is not waiting."""
        return 0.0 if self._waiting_since is None else asyncio.get_running_loop().time() - self._waiting_since

    @property
    def hindrance(self) -> str | None:
        """Why the worker sends little or nothing: the circuit is not closed, or its host lacks a resource."""
        shortage, breaker = self._sender.shortage, self._sender.breaker
        if shortage.lacks is not None:
            return f"this host lacks a resource ({shortage.lacks}): {shortage.reason}; messages wait"
        if breaker.cause is not None:
            return f"the circuit is open, {breaker.cause_text}: {breaker.reason}; messages wait"
        return None

    @property
    def stuck_seconds(self) -> float:
        """How long the oldest running claim or settlement has been waiting for the database or the queue."""
        return asyncio.get_running_loop().time() - min(self._steps) if self._steps else 0.0

    async def run(self) -> None:
        """Deliver until ``stop``, then drain. If cancelled, nothing is lost: queue and leases bring everything back."""
        with self._sender.pulse.beating():
            await self._run()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._send_jobs()) for _ in range(self._limits.concurrency)]
            tasks.append(group.create_task(self._settle_outcomes()))
            tasks.append(group.create_task(self._interrupt_when_paused()))
            tasks.append(group.create_task(self._interrupt_when_clock_is_wrong()))
            await self._consume_until_stopped()
            await self._idle.wait()
            for task in tasks:
                task.cancel()

    async def _consume_until_stopped(self) -> None:
        """Hold a subscription, and replace it when it breaks. Hold none during a pause or with a wrong clock."""
        failures = 0
        while not self._stopping.is_set():
            self._interrupted.clear()
            if self._held:
                await self._unless_stopped(self._wait_until_free())
                continue
            # Wait until everything in flight is settled. If its lease has run out, this worker could claim it a second
            # time.
            await self._unless_stopped(self._idle.wait())
            if self._stopping.is_set():
                break
            try:
                async with self._broker.consume(self._limits.prefetch) as consumer:
                    log.info("worker.consuming", prefetch=self._limits.prefetch)
                    self.receiving = True
                    since = asyncio.get_running_loop().time()
                    try:
                        async with self._ceasing_when_stopped(consumer):
                            await self._take(consumer)
                    finally:
                        # Set before unsubscribing, which takes long if the server does not answer.
                        self.receiving = False
                        if asyncio.get_running_loop().time() - since >= STEADY_SECONDS:
                            failures = 0
                    if self._stopping.is_set() or self._held:
                        await self._idle.wait()
            except UnavailableError as error:
                log.warning("worker.consumer_lost", error=str(error))
            except Exception:
                # A bug that one batch triggers must not end the worker: the queue brings the batch back.
                log.exception("worker.crashed", during="consume")
                self._settler.metrics.background_failures.labels("worker").inc()
            failures += 1
            if not self._interrupted.is_set():
                pause = RECONNECT.delay(failures, None, self._random)
                await self._unless_stopped(self._clock.sleep(pause.total_seconds()))

    @asynccontextmanager
    async def _ceasing_when_stopped(self, consumer: Consumer) -> AsyncIterator[None]:
        """Let ``consumer`` receive nothing more once the pipeline is stopped. What it has received is still sent."""

        async def cease() -> None:
            await self._stopping.wait()
            if self._sender.breaker.allowance is not None:
                # Little or nothing may be sent now. Give the deliveries back, because other workers have time to wait.
                self._interrupted.set()
            else:
                # If the queue is gone, ``receive`` raises as well.
                with suppress(UnavailableError):
                    await consumer.cease()

        ceasing = asyncio.create_task(cease())
        try:
            yield
        finally:
            ceasing.cancel()
            await asyncio.gather(ceasing, return_exceptions=True)

    async def _interrupt_when_paused(self) -> None:
        while True:
            await self._pauses.wait_until(held=True)
            self._interrupted.set()
            await self._pauses.wait_until(held=False)

    async def _interrupt_when_clock_is_wrong(self) -> None:
        while True:
            await self._clock.wait_until(right=False)
            self._interrupted.set()
            await self._clock.wait_until(right=True)

    async def _wait_until_free(self) -> None:
        await self._pauses.wait_until(held=False)
        await self._clock.wait_until(right=True)

    async def _take(self, consumer: Consumer) -> None:
        """Claim ahead until interrupted: as many messages as the slots soon need, and none while the circuit is open.

        Once the pipeline is stopped, return as soon as no delivery is left, or the circuit limits the sends.
        """
        breaker, shortage = self._sender.breaker, self._sender.shortage
        probes = self._claimer.probes()
        while not self._interrupted.is_set():
            if self._stopping.is_set() and breaker.allowance is not None:
                return
            await self._unless_interrupted(self._wait_admitting())
            if breaker.allowance is not None or shortage.lacks:
                # Only one or a few sends are allowed now. Claim no other message before their outcomes are known.
                await self._unless_interrupted(self._idle.wait())
                await self._unless_interrupted(self._wait_admitting())
            await self._unless_interrupted(self._room.wait())
            free = self._limits.batch if self._limits.ahead else self._limits.concurrency - self._in_flight
            most = 1 if shortage.lacks else min(self._limits.batch, free, breaker.allowance or free)
            if breaker.state is not CircuitState.CLOSED:
                deliveries = await self._choose_probe(consumer, probes)
            else:
                deliveries = probes.take(most) or await self._receive(consumer, most)
            if deliveries == []:
                return
            if self._clock.fault is not None:
                # ``_interrupt_when_clock_is_wrong`` has not noticed yet. The deliveries go back when the subscription
                # ends.
                self._interrupted.set()
            if deliveries and not self._interrupted.is_set():
                with self._step():
                    batch = await self._claimer.claim_batch(consumer, deliveries)
                    self._accept(consumer, batch)
                    await self._claimer.dispose_of(consumer, batch.rest)

    async def _wait_admitting(self) -> None:
        await self._sender.shortage.wait()
        await self._sender.breaker.wait_admitting()

    async def _choose_probe(self, consumer: Consumer, probes: Probes) -> list[Delivery] | None:
        """Return one delivery as a probe: of a message that has not failed yet if there is one, otherwise of any.

        Returns None if it is interrupted before a delivery has come, and an empty list if none is left after ``cease``.
        """
        if not len(probes):
            deliveries = await self._receive(consumer, self._limits.batch)
            if not deliveries:
                return deliveries
            await self._add(probes, deliveries)
        while not probes.has_fresh and not self._interrupted.is_set():
            await probes.put_away(consumer)
            deliveries = await self._receive(consumer, self._limits.batch, MORE_SECONDS)
            if not deliveries:
                break
            await self._add(probes, deliveries)
        return probes.choose()

    async def _add(self, probes: Probes, deliveries: Sequence[Delivery]) -> None:
        with self._step():
            await probes.add(deliveries)

    async def _receive(self, consumer: Consumer, most: int, patience: float | None = None) -> list[Delivery] | None:
        """Return the next deliveries, or None if interrupted, or if none has come within ``patience`` seconds."""
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            receiving = consumer.receive(most, self._gather_seconds)
            deliveries = await _unless(self._interrupted, receiving, patience)
        finally:
            self._waiting_since = None
        self.received += len(deliveries or ())
        return deliveries

    def _gather_seconds(self) -> float:
        """Return how long to wait for more deliveries: 0 if nothing is in flight, so a lone message never waits."""
        return GATHER_SECONDS if self._in_flight else 0

    def _accept(self, consumer: Consumer, batch: Batch) -> None:
        if not batch.claimed:
            return
        left = self._limits.lease - self._limits.send_timeout - STORING
        send_by = batch.claimed_at + left.total_seconds()
        for delivery, claim, text in batch.claimed:
            self._jobs.put_nowait(Job(Received(consumer, delivery), claim, send_by, text))
        self._in_flight += len(batch.claimed)
        self._idle.clear()
        self._make_room()

    def _make_room(self) -> None:
        """Let the next messages be claimed, or not: enough wait for a slot, or each slot has its message."""
        waiting = self._jobs.qsize() if self._limits.ahead else self._in_flight + 1
        if waiting > self._limits.concurrency:
            self._room.clear()
        else:
            self._room.set()

    async def _send_jobs(self) -> None:
        """One slot: send one job after the other."""
        while True:
            job = await self._jobs.get()
            self._make_room()
            unsent = self._hurrying or self._held
            self._outcomes.put_nowait(self._sender.give_back(job) if unsent else await self._sender.send(job))

    async def _settle_outcomes(self) -> None:
        while True:
            batch = [await self._outcomes.get()]
            if self._in_flight > 1:
                # Other outcomes will follow. A wait of a few milliseconds stores many of them in one statement. A lone
                # message does not wait.
                await asyncio.sleep(GATHER_SECONDS)
            while len(batch) < BATCH and not self._outcomes.empty():
                batch.append(self._outcomes.get_nowait())
            stored = False
            with self._step():
                try:
                    stored = await self._settler.settle_batch(batch)
                except Exception:
                    # A bug that one batch triggers must not end the worker: the leases bring the batch back.
                    log.exception("worker.crashed", during="settle")
                    self._settler.metrics.background_failures.labels("worker").inc()
            if not stored:
                self._interrupted.set()
            self._in_flight -= len(batch)
            self._make_room()
            if self._in_flight == 0:
                self._idle.set()

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Record when a claim or a settlement began, for ``stuck_seconds``."""
        since = asyncio.get_running_loop().time()
        self._steps.append(since)
        try:
            yield
        finally:
            self._steps.remove(since)

    async def _unless_interrupted(self, waiting: Coroutine[Any, Any, _Result]) -> _Result | None:
        """Await ``waiting``. Cancel it and return None as soon as the subscription is to be given up."""
        return await _unless(self._interrupted, waiting)

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Await ``waiting``. Cancel it as soon as the pipeline is stopped."""
        await _unless(self._stopping, waiting)


async def _unless(
    event: asyncio.Event, waiting: Coroutine[Any, Any, _Result], patience: float | None = None
) -> _Result | None:
    """Await ``waiting``. Cancel it and return None once ``event`` is set, or after ``patience`` seconds."""
    task = asyncio.ensure_future(waiting)
    interruption = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({task, interruption}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for pending in (task, interruption):
            pending.cancel()
        await asyncio.gather(task, interruption, return_exceptions=True)
