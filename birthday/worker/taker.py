"""Step 3a, take: receive deliveries of one subscription, and have them claimed, as many as may be sent soon."""

import asyncio
from collections.abc import Sequence

from birthday.broker import Consumer, Delivery
from birthday.channels.breaker import CircuitState
from birthday.clock import CheckedClock
from birthday.worker.claimer import Batch, Claimer
from birthday.worker.flow import Flow
from birthday.worker.jobs import Job, Received
from birthday.worker.limits import STORING
from birthday.worker.probes import Probes
from birthday.worker.sender import Sender

MORE_SECONDS = 0.1
"""How long to wait for the queue to deliver a message that has not failed yet, as a probe."""


class Taker:
    """Takes deliveries for one worker, one subscription after the other."""

    def __init__(self, flow: Flow, claimer: Claimer, sender: Sender, clock: CheckedClock) -> None:
        """Keep what is passed in; circuit and shortage are those of the sender."""
        self.received = 0
        """How many deliveries have come in. The watchdog compares it over time."""
        self._flow = flow
        self._claimer = claimer
        self._breaker = sender.breaker
        self._shortage = sender.shortage
        self._clock = clock
        self._waiting_since: float | None = None

    @property
    def waiting_seconds(self) -> float:
        """How long the worker has been waiting for the next delivery; 0 if it is not waiting."""
        return 0.0 if self._waiting_since is None else asyncio.get_running_loop().time() - self._waiting_since

    async def take(self, consumer: Consumer) -> None:
        """Claim ahead until interrupted: as many messages as the slots soon need, and none while the circuit is open.

        Once the pipeline is stopped, return as soon as no delivery is left, or the circuit limits the sends.

        Raises:
            UnavailableError: the queue is gone.
        """
        flow, breaker = self._flow, self._breaker
        probes = self._claimer.probes()
        while not flow.interrupted.is_set():
            if flow.stopping.is_set() and breaker.allowance is not None:
                return
            await flow.unless_interrupted(self._wait_admitting())
            if breaker.allowance is not None or self._shortage.lacks:
                # Only one or a few sends are allowed now. Claim no other message before their outcomes are known.
                await flow.unless_interrupted(flow.idle.wait())
                await flow.unless_interrupted(self._wait_admitting())
            await flow.unless_interrupted(flow.room.wait())
            limits = flow.limits
            free = limits.batch if limits.ahead else limits.concurrency - flow.in_flight
            most = 1 if self._shortage.lacks else min(limits.batch, free, breaker.allowance or free)
            if breaker.state is not CircuitState.CLOSED:
                deliveries = await self._choose_probe(consumer, probes)
            else:
                deliveries = probes.take(most) or await self._receive(consumer, most)
            if deliveries == []:
                return
            if self._clock.fault is not None:
                # The pipeline has not noticed yet. The deliveries go back when the subscription ends.
                flow.interrupted.set()
            if deliveries and not flow.interrupted.is_set():
                with flow.step():
                    batch = await self._claimer.claim_batch(consumer, deliveries)
                    flow.accept(self._jobs(consumer, batch))
                    await self._claimer.dispose_of(consumer, batch.rest)

    async def _wait_admitting(self) -> None:
        await self._shortage.wait()
        await self._breaker.wait_admitting()

    async def _choose_probe(self, consumer: Consumer, probes: Probes) -> list[Delivery] | None:
        """Return one delivery as a probe: of a message that has not failed yet if there is one, otherwise of any.

        Returns None if it is interrupted before a delivery has come, and an empty list if none is left after ``cease``.
        """
        if not len(probes):
            deliveries = await self._receive(consumer, self._flow.limits.batch)
            if not deliveries:
                return deliveries
            await self._add(probes, deliveries)
        while not probes.has_fresh and not self._flow.interrupted.is_set():
            await probes.put_away(consumer)
            deliveries = await self._receive(consumer, self._flow.limits.batch, MORE_SECONDS)
            if not deliveries:
                break
            await self._add(probes, deliveries)
        return probes.choose()

    async def _add(self, probes: Probes, deliveries: Sequence[Delivery]) -> None:
        with self._flow.step():
            await probes.add(deliveries)

    async def _receive(self, consumer: Consumer, most: int, patience: float | None = None) -> list[Delivery] | None:
        """Return the next deliveries, or None if interrupted, or if none has come within ``patience`` seconds."""
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            receiving = consumer.receive(most, lambda: self._flow.gather_seconds)
            deliveries = await self._flow.unless_interrupted(receiving, patience)
        finally:
            self._waiting_since = None
        self.received += len(deliveries or ())
        return deliveries

    def _jobs(self, consumer: Consumer, batch: Batch) -> list[Job]:
        left = self._flow.limits.lease - self._flow.limits.send_timeout - STORING
        send_by = batch.claimed_at + left.total_seconds()
        return [Job(Received(consumer, delivery), claim, send_by, text) for delivery, claim, text in batch.claimed]
