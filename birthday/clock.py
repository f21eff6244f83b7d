"""The clock is passed in: code that reads the time or waits gets a ``Clock``."""

import asyncio
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The source of business time. Production uses ``SystemClock``; tests pass a clock that they set themselves."""

    def now(self) -> datetime:
        """Return the current instant as an aware UTC datetime."""

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of this clock's time."""


class CheckedClock(Clock, Protocol):
    """A clock that knows whether it is right. Production uses ``ClockGuard``."""

    @property
    def fault(self) -> str | None:
        """Why the clock is wrong, so that nothing that depends on the time may be done; None if it is right."""

    async def wait_until(self, *, right: bool) -> None:
        """Wait until the clock is right or, if ``right`` is false, until it is wrong."""


class SystemClock:
    """The clock of the host."""

    def now(self) -> datetime:
        """Return the current instant as an aware UTC datetime."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of real time."""
        await asyncio.sleep(seconds)
