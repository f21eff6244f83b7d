"""Channels for tests that are about the way to a channel, not about HTTP."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from birthday.channels import Delivered, Greeting, Outcome
from birthday.channels.breaker import CircuitBreaker
from birthday.clock import Clock


@dataclass(frozen=True, slots=True)
class Sent:
    """A letter, and when it was sent by the clock of the test."""

    greeting: Greeting
    at: datetime


class RecordingChannel:
    """Keeps every letter; accepts it, or answers what the test says."""

    api = "message-service"

    def __init__(self, clock: Clock, answer: Callable[[Greeting], Outcome] = lambda _letter: Delivered()) -> None:
        """Answer each letter with ``answer``."""
        self.breaker: CircuitBreaker | None = None
        self.sent: list[Sent] = []
        self.answer = answer
        self._clock = clock
        self._changed = asyncio.Condition()

    async def send(self, greeting: Greeting) -> Outcome:
        """Record the letter."""
        self.sent.append(Sent(greeting, self._clock.now()))
        async with self._changed:
            self._changed.notify_all()
        return self.answer(greeting)

    async def check(self) -> None:
        """Do nothing: there is nothing to reach."""

    async def close(self) -> None:
        """Do nothing."""

    async def wait_for(self, count: int, seconds: float = 60) -> None:
        """Wait, in real time, until ``count`` letters have been sent in all.

        Raises:
            TimeoutError: if they have not within ``seconds``.
        """
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.sent) >= count)


class HeldChannel(RecordingChannel):
    """Records each letter, and answers only once it is released."""

    def __init__(self, clock: Clock) -> None:
        """Hold everything at first."""
        super().__init__(clock)
        self._released = asyncio.Event()

    async def send(self, greeting: Greeting) -> Outcome:
        """Record the letter, and wait."""
        outcome = await super().send(greeting)
        await self._released.wait()
        return outcome

    def release(self) -> None:
        """Answer what waits, and from now on at once."""
        self._released.set()
