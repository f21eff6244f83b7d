"""Writes requests of several connections together, because the message service may run on the same machine."""

import asyncio
from typing import Final

TOGETHER: Final = 12
"""How many requests are written together. With more, the service would have nothing to do until they are complete."""


class Writes:
    """Requests that wait to be written until there are enough of them, or the event loop's turn ends.

    A request that is written wakes the message service. If it runs on this machine, it often takes the core of the
    worker at once, answers, and sleeps until the next request.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def add(self, transport: asyncio.Transport, request: bytes) -> None:
        """Write a request, in the next turn of the running event loop at the latest.

        It is not written if the transport is closed before.
        """
        self._waiting.append((transport, request))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._write)
        elif len(self._waiting) == TOGETHER:
            self._write()

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, request in waiting:
            if not transport.is_closing():
                transport.write(request)
