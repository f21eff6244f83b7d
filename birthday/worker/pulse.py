"""Detects that the process stood still (SIGSTOP, a frozen machine), so that it blames nobody else for its delay."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

log = structlog.get_logger()

_EVERY_SECONDS: Final = 0.25
_LATE_SECONDS: Final = 1.0


class Pulse:
    """Beats four times a second, and notices when a beat comes more than a second late."""

    def __init__(self) -> None:
        """Beat only within ``beating``."""
        self._stood_until = float("-inf")

    def stood_still_since(self, instant: float) -> bool:
        """Say whether the process has stood still since ``instant``, in the loop's time."""
        return self._stood_until >= instant

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat for the length of the context.

        A beat is a callback, not a task. So in a turn of the loop that comes late, it runs before any task that this
        turn wakes up.
        """
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def beat(due: float) -> None:
            nonlocal timer
            now = loop.time()
            if now - due > _LATE_SECONDS:
                self._stood_until = now
                log.warning("worker.stood_still", seconds=round(now - due, 1))
            timer = loop.call_at(now + _EVERY_SECONDS, beat, now + _EVERY_SECONDS)

        timer = loop.call_later(0, beat, loop.time())
        try:
            yield
        finally:
            timer.cancel()
