"""Writes requests of several connections together, because the message service may run on the same machine."""

import asyncio
import time
from typing import Final

TOGETHER: Final = 12
"""How many requests are written together. With more, the service has nothing to do for longer while they gather."""


class Writes:
    """Requests that wait to be written until there are enough of them, or until the next turn of the event loop.

    A request that is written wakes the message service. If it runs on this machine, it often takes the core of the
    worker at once, answers, and sleeps until the next request.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes, float]] = []

    def add(self, transport: asyncio.Transport, request: bytes, deadline: float) -> None:
        """Write a request, in the next turn of the running event loop at the latest.

        It is not written after ``deadline``, which is in the time of ``time.monotonic``: the process may have been
        stopped since, and another worker may have the message. Nor is it written if the transport is closed.
        """
        self._waiting.append((transport, request, deadline))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._write)
        elif len(self._waiting) == TOGETHER:
            self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        # The loop's own time is that of the beginning of its turn.
        now = time.monotonic()
        for transport, request, deadline in waiting:
            if now < deadline and not transport.is_closing():
                transport.write(request)
