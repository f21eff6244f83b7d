"""Step 3, deliver: the pipeline from the queue to the message service and back.

Input: a queue delivery. Result: its message is ``delivered``, ``failed`` (and dead-lettered) or ``retrying`` (and
queued again, with a delay). This status commits before the delivery is acked. So a crash may repeat work, but never
drops it. A repeated send has the same idempotency key.

It is a stream: the taker claims ahead in batches, a fixed number of slots send, and outcomes are stored in
micro-batches. While the queue is long, several batches are claimed at a time, and several are stored, because each of
them waits for the database's disk. Slots and settlements outlive the consumer. If its connection breaks, messages in
flight are still sent and stored. Only the ack is lost; when the delivery comes again, the claim finds it settled.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from random import Random

import structlog

from birthday.broker import Broker, Consumer
from birthday.channels.breaker import CircuitBreaker
from birthday.clock import CheckedClock
from birthday.errors import UnavailableError
from birthday.operations.pauses import Pauses
from birthday.worker.claimer import Claimer
from birthday.worker.flow import Flow
from birthday.worker.jobs import Done
from birthday.worker.limits import SETTLEMENTS, Limits
from birthday.worker.retrying import RECONNECT
from birthday.worker.sender import Sender
from birthday.worker.settler import Settler, Stored
from birthday.worker.taker import Taker

log = structlog.get_logger()

STEADY_SECONDS = 10.0
"""If a subscription lasted this long, the wait before the next one is short again. Otherwise the wait grows."""


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
        self._broker = broker
        self._flow = Flow(limits)
        self._taker = Taker(self._flow, claimer, sender, clock)
        self._sender = sender
        self._settler = settler
        self._limits = limits
        self._pauses = pauses
        self._clock = clock
        self._random = random
        self._hurrying = False
        self._gathering = asyncio.Lock()

    def stop(self) -> None:
        """Receive nothing more. ``run`` returns once everything received is sent, stored and acked."""
        self._flow.stopping.set()

    def hurry(self) -> None:
        """After ``stop``: finish the sends that have begun, and give all other messages back to other workers."""
        self._hurrying = True
        self._flow.interrupt()

    def resubscribe(self) -> None:
        """Give up the subscription and get a new one. Messages in flight go on."""
        self._flow.interrupt()

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
        return self._taker.waiting_seconds

    @property
    def received(self) -> int:
        """How many deliveries have come in. The watchdog compares it over time."""
        return self._taker.received

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
        """How long the oldest claim, settlement or ack under way has been waiting for the database or the queue."""
        return self._flow.stuck_seconds

    async def run(self) -> None:
        """Deliver until ``stop``, then drain. If cancelled, nothing is lost: queue and leases bring everything back."""
        with self._sender.pulse.beating():
            await self._run()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._send_jobs()) for _ in range(self._limits.concurrency)]
            tasks += [group.create_task(self._settle_outcomes(group)) for _ in range(SETTLEMENTS)]
            tasks.append(group.create_task(self._interrupt_when_paused()))
            tasks.append(group.create_task(self._interrupt_when_clock_is_wrong()))
            await self._consume_until_stopped()
            await self._flow.idle.wait()
            for task in tasks:
                task.cancel()

    async def _consume_until_stopped(self) -> None:
        """Hold a subscription, and replace it when it breaks. Hold none during a pause or with a wrong clock."""
        failures = 0
        while not self._flow.stopping.is_set():
            self._flow.interrupted = False
            if self._held:
                await self._flow.unless_stopped(self._wait_until_free())
                continue
            # Wait until everything in flight is settled. If its lease has run out, this worker could claim it a second
            # time.
            await self._flow.unless_stopped(self._flow.idle.wait())
            if self._flow.stopping.is_set():
                break
            try:
                async with self._broker.consume(self._limits.prefetch) as consumer:
                    log.info("worker.consuming", prefetch=self._limits.prefetch)
                    self.receiving = True
                    since = asyncio.get_running_loop().time()
                    try:
                        async with self._ceasing_when_stopped(consumer):
                            await self._taker.take(consumer)
                    finally:
                        # Set before unsubscribing, which takes long if the server does not answer.
                        self.receiving = False
                        if asyncio.get_running_loop().time() - since >= STEADY_SECONDS:
                            failures = 0
                    if self._flow.stopping.is_set() or self._held:
                        await self._flow.idle.wait()
            except UnavailableError as error:
                self._flow.interrupted = False
                log.warning("worker.consumer_lost", error=str(error))
            except Exception:
                self._flow.interrupted = False
                # A bug that one batch triggers must not end the worker: the queue brings the batch back.
                log.exception("worker.crashed", during="consume")
                self._settler.metrics.background_failures.labels("worker").inc()
            failures += 1
            if not self._flow.interrupted:
                pause = RECONNECT.delay(failures, None, self._random)
                await self._flow.unless_stopped(self._clock.sleep(pause.total_seconds()))

    @asynccontextmanager
    async def _ceasing_when_stopped(self, consumer: Consumer) -> AsyncIterator[None]:
        """Let ``consumer`` receive nothing more once the pipeline is stopped. What it has received is still sent."""

        async def cease() -> None:
            await self._flow.stopping.wait()
            if self._sender.breaker.allowance is not None:
                # Little or nothing may be sent now. Give the deliveries back, because other workers have time to wait.
                self._flow.interrupt()
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
            self._flow.interrupt()
            await self._pauses.wait_until(held=False)

    async def _interrupt_when_clock_is_wrong(self) -> None:
        while True:
            await self._clock.wait_until(right=False)
            self._flow.interrupt()
            await self._clock.wait_until(right=True)

    async def _wait_until_free(self) -> None:
        await self._pauses.wait_until(held=False)
        await self._clock.wait_until(right=True)

    async def _send_jobs(self) -> None:
        """One slot: send one job after the other."""
        flow, sender = self._flow, self._sender
        while True:
            job = await flow.begin()
            allowance = sender.allowance
            # More may be in flight than is allowed now, if it was claimed before the circuit opened.
            unsent = self._hurrying or self._held or (allowance is not None and flow.in_flight > allowance)
            flow.finish(sender.give_back(job) if unsent else await sender.send(job))

    async def _settle_outcomes(self, group: asyncio.TaskGroup) -> None:
        """Store outcomes in batches. While some are being stored, the next full batch is gathered and stored too.

        The queue is told in tasks of ``group``, so that outcomes are stored while it takes its time.
        """
        while True:
            async with self._gathering:
                batch = await self._flow.gather_outcomes()
            with self._flow.storing():
                await self._settle(batch, group)

    async def _settle(self, batch: Sequence[Done], group: asyncio.TaskGroup) -> None:
        stored: list[Stored] = []
        with self._finishing("settle"):
            stored = await self._settler.store(batch)
        self._flow.give_up(len(batch) - len(stored))
        if stored:
            self._flow.store(len(stored))
            group.create_task(self._tell_queue(stored))

    async def _tell_queue(self, stored: Sequence[Stored]) -> None:
        """Ack, reject and publish retries. Until then, the messages are in flight."""
        left = len(stored)
        with self._finishing("ack"):
            told = await self._settler.tell_queue(stored)
            self._flow.tell(told)
            left -= told
            if left and not await self._settler.publish(stored):
                self._flow.interrupt()
        self._flow.tell(left)

    @contextmanager
    def _finishing(self, what: str) -> Iterator[None]:
        """Give up the subscription after a bug. It must not end the worker: queue and leases bring the batch back."""
        with self._flow.step():
            try:
                yield
            except Exception:
                log.exception("worker.crashed", during=what)
                self._settler.metrics.background_failures.labels("worker").inc()
                self._flow.interrupt()
