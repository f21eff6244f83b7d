"""What one worker has in flight, and what stops it: the state that taking, sending and settling share."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from birthday.worker.jobs import Done, Job
from birthday.worker.limits import Limits

_Result = TypeVar("_Result")

GATHER_SECONDS = 0.005
"""How long to wait for others, to store or claim them together."""
MOST_WAITS = 4
"""How often to wait so long for others to store, while some are being stored and sends go on."""


class Flow:
    """Claimed messages wait in ``jobs`` for a slot, and then in ``outcomes`` to be stored."""

    def __init__(self, limits: Limits) -> None:
        """Start with nothing in flight."""
        self.limits = limits
        self.jobs: asyncio.Queue[Job] = asyncio.Queue()
        self.outcomes: asyncio.Queue[Done] = asyncio.Queue()
        self.in_flight = 0
        """How many messages are being claimed, or are claimed and the queue has not been told of their outcomes."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self.room = asyncio.Event()
        """Set while more messages may be claimed."""
        self.room.set()
        self.storable = asyncio.Event()
        """Set unless so much is waiting to be stored that nothing more may be sent: a crash would repeat it."""
        self.storable.set()
        self.stopping = asyncio.Event()
        """Set once nothing more may be received."""
        self.interrupted = False
        """Whether the subscription is to be given up; ``interrupt`` says so."""
        self._interruptible: asyncio.Timeout | None = None
        self._full = asyncio.Event()
        """Set once a full batch of outcomes waits, with the one that ``gather_outcomes`` has."""
        self._storing = 0
        self._claiming = 0
        self._begun = 0
        self._stored = 0
        self._paces: deque[int] = deque(maxlen=4)
        """How many messages the slots took during each of the last claims, since nothing was in flight."""
        self._steps: list[float] = []

    @property
    def stuck_seconds(self) -> float:
        """How long the oldest claim, settlement or ack under way has been waiting for the database or the queue."""
        return asyncio.get_running_loop().time() - min(self._steps) if self._steps else 0.0

    @property
    def gather_seconds(self) -> float:
        """How long to wait for more deliveries: 0 if nothing is in flight, so a lone message never waits."""
        return GATHER_SECONDS if self.in_flight else 0

    @contextmanager
    def claim(self, count: int) -> Iterator[None]:
        """Count deliveries as in flight while they are being claimed. ``accept``, within, adds what was claimed."""
        begun = self._begun
        self._claiming += count
        self._add(count)
        try:
            yield
        finally:
            self._paces.append(self._begun - begun)
            self._claiming -= count
            self._add(-count)

    def accept(self, jobs: Sequence[Job]) -> None:
        """Let claimed messages wait for a slot."""
        for job in jobs:
            self.jobs.put_nowait(job)
        self._add(len(jobs))

    async def begin(self) -> Job:
        """Wait until a message may be sent, and return it."""
        job = await self.jobs.get()
        while not self.storable.is_set():
            await self.storable.wait()
        self._begun += 1
        self._make_room()
        return job

    def finish(self, done: Done) -> None:
        """Let an outcome wait until it is stored."""
        self.outcomes.put_nowait(done)
        if self._is_full:
            self._full.set()

    async def gather_outcomes(self) -> list[Done]:
        """Wait for outcomes, and return as many as one statement stores. For one caller at a time.

        A lone message does not wait. If others are in flight, their outcomes will follow, and one statement stores
        many of them. While some are being stored, more are waited for, unless sends wait for them.
        """
        batch = [await self.outcomes.get()]
        if self.in_flight > 1:
            for _ in range(MOST_WAITS):
                if await self._fills() or not self._storing or not self.storable.is_set():
                    break
        while len(batch) < self.limits.batch and not self.outcomes.empty():
            batch.append(self.outcomes.get_nowait())
        return batch

    async def _fills(self) -> bool:
        """Wait until there is a full batch, but not longer than ``GATHER_SECONDS``; say whether there is one."""
        if not self._is_full:
            self._full.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER_SECONDS):
                    await self._full.wait()
        return self._is_full

    @property
    def _is_full(self) -> bool:
        return self.outcomes.qsize() >= self.limits.batch - 1

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Know that outcomes are being stored: more gather meanwhile."""
        self._storing += 1
        try:
            yield
        finally:
            self._storing -= 1

    def store(self, count: int) -> None:
        """Note that so many messages are stored, so that a crash does not repeat them."""
        self._stored += count
        self._make_room()

    def tell(self, count: int) -> None:
        """Note that the queue knows of so many messages that are stored."""
        self._stored -= count
        self._add(-count)

    def give_up(self, count: int) -> None:
        """Note that so many messages are another worker's now, or left to their leases."""
        self._add(-count)

    def _add(self, count: int) -> None:
        self.in_flight += count
        _set(self.idle, to=self.in_flight == 0)
        if self.in_flight == 0:
            self._paces.clear()
        self._make_room()

    def _make_room(self) -> None:
        """Let the next messages be claimed, or not: enough are waiting or being claimed, or each slot has its message.

        It is enough if the slots have work for as long as a claim takes, at the rate of the last ones. If none
        waits, more are claimed. While that rate is unknown, these are at most two batches: if sends turn out to be
        slow, more would wait for longer than their leases hold.
        """
        limits, waiting, pace = self.limits, self.jobs.qsize(), max(self._paces, default=0)
        unsent = waiting + self._claiming
        if limits.ahead:
            enough = limits.concurrency + min(pace, 2 * limits.batch)
            starved = waiting == 0 and (pace > 0 or unsent <= limits.batch)
            _set(self.room, to=starved or unsent <= enough)
        else:
            _set(self.room, to=self.in_flight < limits.concurrency)
        _set(self.storable, to=self.in_flight - unsent - self._stored < limits.unstored)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Record when a claim, a settlement or an ack began, for ``stuck_seconds``."""
        since = asyncio.get_running_loop().time()
        self._steps.append(since)
        try:
            yield
        finally:
            self._steps.remove(since)

    def interrupt(self) -> None:
        """Have the subscription given up."""
        self.interrupted = True
        if self._interruptible is not None and not self._interruptible.expired():
            self._interruptible.reschedule(0)

    async def unless_interrupted(
        self, waiting: Coroutine[Any, Any, _Result], patience: float | None = None
    ) -> _Result | None:
        """Await ``waiting``. Cancel it and return None once interrupted, or after ``patience`` seconds.

        For one caller at a time. It is not awaited in a task of its own, because each turn of the loop takes
        milliseconds while all slots are busy.
        """
        try:
            async with asyncio.timeout(0 if self.interrupted else patience) as self._interruptible:
                return await waiting
        except TimeoutError:
            return None
        finally:
            self._interruptible = None

    async def unless_stopped(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Await ``waiting``. Cancel it as soon as nothing more may be received."""
        task = asyncio.ensure_future(waiting)
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
        finally:
            for pending in (task, stop):
                pending.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)


def _set(event: asyncio.Event, *, to: bool) -> None:
    if to:
        event.set()
    else:
        event.clear()
