"""What one worker has in flight, and what stops it: the state that taking, sending and settling share."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from birthday.worker.jobs import Done, Job
from birthday.worker.limits import Limits

_Result = TypeVar("_Result")

GATHER_SECONDS = 0.005
"""How long to wait for others, to store or claim them together."""


class Flow:
    """Claimed messages wait in ``jobs`` for a slot, and then in ``outcomes`` to be stored."""

    def __init__(self, limits: Limits) -> None:
        """Start with nothing in flight."""
        self.limits = limits
        self.jobs: asyncio.Queue[Job] = asyncio.Queue()
        self.outcomes: asyncio.Queue[Done] = asyncio.Queue()
        self.in_flight = 0
        """How many messages are claimed and not stored yet."""
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self.room = asyncio.Event()
        """Set while more messages may be claimed."""
        self.room.set()
        self.stopping = asyncio.Event()
        """Set once nothing more may be received."""
        self.interrupted = asyncio.Event()
        """Set while the subscription is to be given up."""
        self._steps: list[float] = []

    @property
    def stuck_seconds(self) -> float:
        """How long the oldest running claim or settlement has been waiting for the database or the queue."""
        return asyncio.get_running_loop().time() - min(self._steps) if self._steps else 0.0

    @property
    def gather_seconds(self) -> float:
        """How long to wait for more deliveries: 0 if nothing is in flight, so a lone message never waits."""
        return GATHER_SECONDS if self.in_flight else 0

    def accept(self, jobs: Sequence[Job]) -> None:
        """Let claimed messages wait for a slot."""
        for job in jobs:
            self.jobs.put_nowait(job)
        self.in_flight += len(jobs)
        if jobs:
            self.idle.clear()
            self.make_room()

    def settle(self, count: int) -> None:
        """Note that so many messages are stored, or left to their leases."""
        self.in_flight -= count
        self.make_room()
        if self.in_flight == 0:
            self.idle.set()

    def make_room(self) -> None:
        """Let the next messages be claimed, or not: enough wait for a slot, or each slot has its message."""
        waiting = self.jobs.qsize() if self.limits.ahead else self.in_flight + 1
        if waiting > self.limits.concurrency:
            self.room.clear()
        else:
            self.room.set()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Record when a claim or a settlement began, for ``stuck_seconds``."""
        since = asyncio.get_running_loop().time()
        self._steps.append(since)
        try:
            yield
        finally:
            self._steps.remove(since)

    async def unless_interrupted(
        self, waiting: Coroutine[Any, Any, _Result], patience: float | None = None
    ) -> _Result | None:
        """Await ``waiting``. Cancel it and return None once interrupted, or after ``patience`` seconds."""
        return await _unless(self.interrupted, waiting, patience)

    async def unless_stopped(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Await ``waiting``. Cancel it as soon as nothing more may be received."""
        await _unless(self.stopping, waiting)


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
