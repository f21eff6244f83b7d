"""Step 3a, take: receive deliveries of one subscription, and have them claimed, as many as may be sent soon."""

import asyncio
from collections.abc import Sequence

from birthday.broker import Consumer, Delivery
from birthday.channels.breaker import CircuitState
from birthday.clock import CheckedClock
from birthday.worker.claimer import Batch, Claimer
from birthday.worker.early import Early
from birthday.worker.flow import Flow
from birthday.worker.jobs import Job, Received
from birthday.worker.limits import CLAIMS, STORING
from birthday.worker.probes import Probes
from birthday.worker.sender import Sender

MORE_SECONDS = 0.1
"""How long to wait for the queue to deliver a message that has not failed yet, as a probe."""
SEARCH_SECONDS = 2.0
"""How long to search for one. In a long queue, what was put away comes again before the last message has come."""
LOOK_SECONDS = 0.1
"""How often to compare held deliveries with the clock, because the clock may be set."""


class Taker:
    """Takes deliveries for one worker, one subscription after the other."""

    def __init__(self, flow: Flow, claimer: Claimer, sender: Sender, clock: CheckedClock) -> None:
        """Keep what is passed in; circuit and shortage are those of the sender."""
        self.received = 0
        """How many deliveries have come in. The watchdog compares it over time."""
        self._flow = flow
        self._claimer = claimer
        self._sender = sender
        self._breaker = sender.breaker
        self._clock = clock
        self._waiting_since: float | None = None
        self._early = Early()

    @property
    def waiting_seconds(self) -> float:
        """How long the worker has been waiting for the next delivery; 0 if it is not waiting.

        While it holds deliveries that are not due, it begins anew ten times a second.
        """
        return 0.0 if self._waiting_since is None else asyncio.get_running_loop().time() - self._waiting_since

    async def take(self, consumer: Consumer) -> None:
        """Claim ahead until interrupted: as many messages as the slots soon need, and none while the circuit is open.

        Once the pipeline is stopped, return as soon as no delivery is left, or the circuit limits the sends.

        Raises:
            UnavailableError: the queue is gone.
        """
        claims: set[asyncio.Task[None]] = set()
        # What the last subscription held has gone back to the queue.
        self._early = Early()
        try:
            await self._take(consumer, claims)
        except asyncio.CancelledError:
            for claim in claims:
                claim.cancel()
            raise
        finally:
            # What they claim must be sent, or others would wait for the leases to run out.
            ended = await asyncio.gather(*claims, return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    async def _take(self, consumer: Consumer, claims: set[asyncio.Task[None]]) -> None:
        flow, breaker, sender = self._flow, self._breaker, self._sender
        probes = self._claimer.probes()
        while not flow.interrupted:
            if flow.stopping.is_set() and breaker.allowance is not None:
                return
            await flow.unless_interrupted(self._wait_admitting())
            if sender.allowance is not None:
                # Only one or a few sends are allowed now. Claim no other message before their outcomes are known.
                await flow.unless_interrupted(flow.idle.wait())
                await flow.unless_interrupted(self._wait_admitting())
            await flow.unless_interrupted(flow.room.wait())
            limits = flow.limits
            free = limits.batch if limits.ahead else limits.concurrency - flow.in_flight
            most = min(limits.batch, free, sender.allowance or free)
            if breaker.state is not CircuitState.CLOSED:
                deliveries = await self._choose_probe(consumer, probes)
            else:
                deliveries = probes.take(most) or await self._receive(consumer, most)
            if deliveries == []:
                if flow.idle.is_set() or not len(self._early):
                    return
                # The subscription lasts until all sends have ended. What falls due meanwhile is sent as well.
                await flow.unless_interrupted(flow.idle.wait(), LOOK_SECONDS)
            if self._clock.fault is not None:
                # The pipeline has not noticed yet. The deliveries go back when the subscription ends.
                flow.interrupt()
            if deliveries and not flow.interrupted:
                claim = asyncio.create_task(self._claim(consumer, deliveries))
                claim.add_done_callback(self._interrupt_if_failed)
                claims.add(claim)
                if len(deliveries) < limits.batch:
                    # The queue is short. Meanwhile the next deliveries gather.
                    await asyncio.wait({claim})
                else:
                    # Let it begin, so that its messages are counted before the next claim.
                    await asyncio.sleep(0)
                await _leave(claims, CLAIMS - 1)

    async def _claim(self, consumer: Consumer, deliveries: Sequence[Delivery]) -> None:
        with self._flow.step():
            with self._flow.claim(len(deliveries)):
                batch = await self._claimer.claim_batch(consumer, deliveries)
                self._flow.accept(self._jobs(consumer, batch))
            await self._claimer.dispose_of(consumer, batch.rest)

    def _interrupt_if_failed(self, claim: asyncio.Task[None]) -> None:
        if not claim.cancelled() and claim.exception() is not None:
            self._flow.interrupt()

    async def _wait_admitting(self) -> None:
        await self._sender.shortage.wait()
        await self._breaker.wait_admitting()

    async def _choose_probe(self, consumer: Consumer, probes: Probes) -> list[Delivery] | None:
        """Return one delivery as a probe: of a message that has not failed yet if one is found, otherwise of any.

        Returns None if it is interrupted before a delivery has come, and an empty list if none is left after ``cease``.
        """
        if not len(probes):
            deliveries = await self._receive(consumer, self._flow.limits.batch)
            if not deliveries:
                return deliveries
            await self._add(probes, deliveries)
        now = asyncio.get_running_loop().time
        give_up_at = now() + SEARCH_SECONDS
        until = now() + MORE_SECONDS
        while not probes.has_fresh and not self._flow.interrupted and (left := min(until, give_up_at) - now()) > 0:
            await probes.put_away(consumer)
            deliveries = await self._receive(consumer, self._flow.limits.batch, left)
            if deliveries == []:
                break
            if deliveries:
                await self._add(probes, deliveries)
                until = now() + MORE_SECONDS
        return probes.choose()

    async def _add(self, probes: Probes, deliveries: Sequence[Delivery]) -> None:
        with self._flow.step():
            await probes.add(deliveries)

    async def _receive(self, consumer: Consumer, most: int, patience: float | None = None) -> list[Delivery] | None:
        """Return the next deliveries that are due, and hold those that are not.

        Returns None if interrupted, if none has come within ``patience`` seconds, or if none of them is due yet.
        """
        now = self._clock.now()
        if held := self._early.take(most, now):
            return held
        if (left := self._early.seconds_left(now)) is not None:
            # While others are in flight, those that fall due soon are claimed together.
            patience = min(patience or LOOK_SECONDS, max(left, self._flow.gather_seconds), LOOK_SECONDS)
        self._waiting_since = asyncio.get_running_loop().time()
        try:
            receiving = consumer.receive(most, lambda: self._flow.gather_seconds)
            deliveries = await self._flow.unless_interrupted(receiving, patience)
        finally:
            self._waiting_since = None
        if not deliveries:
            return deliveries
        self.received += len(deliveries)
        return self._early.hold(deliveries, self._clock.now()) or None

    def _jobs(self, consumer: Consumer, batch: Batch) -> list[Job]:
        left = self._flow.limits.lease - self._flow.limits.send_timeout - STORING
        send_by = batch.claimed_at + left.total_seconds()
        return [Job(Received(consumer, delivery), claim, send_by, text) for delivery, claim, text in batch.claimed]


async def _leave(claims: set[asyncio.Task[None]], most: int) -> None:
    """Wait until at most so many claims are under way. Raises the error of one that has failed."""
    while len(claims) > most:
        done, _ = await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
        claims -= done
        for claim in done:
            claim.result()
