"""A clock that a test moves by hand."""

import asyncio
from datetime import UTC, datetime, timedelta

NINE_O_CLOCK = datetime(2026, 3, 1, 9, tzinfo=UTC)


class ManualClock:
    """Stands still until it is advanced; whoever sleeps by it wakes as soon as it has come that far."""

    def __init__(self, start: datetime = NINE_O_CLOCK) -> None:
        """Start at ``start``, an aware UTC instant."""
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []
        self._asleep = asyncio.Condition()
        self._fault: str | None = None
        self._judged = asyncio.Condition()
        self.waits_to_be_right = 0
        """How often somebody has waited for it to be right."""

    @property
    def fault(self) -> str | None:
        """What a test has said is wrong with it; None at first."""
        return self._fault

    async def judge(self, fault: str | None) -> None:
        """Say what is wrong with it, or that it is right, and wake whom it concerns."""
        async with self._judged:
            self._fault = fault
            self._judged.notify_all()

    async def wait_until(self, *, right: bool) -> None:
        """Return as soon as the clock is right, or is not."""
        self.waits_to_be_right += right
        async with self._judged:
            await self._judged.wait_for(lambda: (self._fault is None) is right)

    def now(self) -> datetime:
        """Return the current instant as an aware UTC datetime."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move the clock, back too, and wake whom it concerns; they run when the caller next awaits something."""
        self._now += by
        for sleeper in [each for each in self._sleepers if each[0] <= self._now]:
            # Who is woken does not sleep any more, though it has not run yet.
            self._sleepers.remove(sleeper)
            if not sleeper[1].done():
                sleeper[1].set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by ``seconds``; at least give way once."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper = (self._now + timedelta(seconds=seconds), asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        try:
            async with self._asleep:
                self._asleep.notify_all()
            await sleeper[1]
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    async def wait_for_sleepers(self, count: int = 1, seconds: float = 60) -> None:
        """Wait, in real time, until at least ``count`` tasks sleep by this clock: before advancing it for them.

        Raises:
            TimeoutError: if they do not within ``seconds``.
        """
        async with asyncio.timeout(seconds), self._asleep:
            await self._asleep.wait_for(lambda: len(self._sleepers) >= count)
