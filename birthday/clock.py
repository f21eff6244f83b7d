"""Time, injected: everything that needs to know when it is, or to wait, is handed a ``Clock``."""

import asyncio
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where business time comes from. Production uses ``SystemClock``; tests pass one that they move themselves."""

    def now(self) -> datetime:
        """Return the current instant as an aware UTC datetime."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of this clock's time."""
        ...


class CheckedClock(Clock, Protocol):
    """A clock that knows whether it is right. Production uses ``ClockGuard``."""

    @property
    def fault(self) -> str | None:
        """Why nothing that time decides may be done now; None if the clock is right."""
        ...

    async def wait_until(self, *, right: bool) -> None:
        """Return as soon as the clock is right, or is not."""
        ...


class SystemClock:
    """The clock of the host."""

    def now(self) -> datetime:
        """Return the current instant as an aware UTC datetime."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of real time."""
        await asyncio.sleep(seconds)
