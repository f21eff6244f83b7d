"""A message service that costs as little as Python allows: it accepts everything and remembers when it came.

Run it as ``python -m benchmarks.message_service``; it prints its port. ``POST /send`` is the service, anything else
with POST is control: ``/reset?<seconds>`` forgets what came and sets how long an answer takes. GET answers with the
number of messages so far, and ``GET /arrivals`` with the instants of all of them, monotonic seconds as doubles.
"""

import asyncio
import re
import time
from array import array
from typing import cast
from urllib.parse import urlsplit

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%b"
_ACCEPTED = _OK % (2, b"{}")


class State:
    """What has come so far, and how long an answer takes."""

    def __init__(self) -> None:
        """Start empty, and answer at once."""
        self.arrivals = array("d")
        self.delay_seconds = 0.0


class Exchange(asyncio.Protocol):
    """One connection: requests in, one answer each."""

    def __init__(self, state: State) -> None:
        """Share the state with all connections."""
        self._state = state
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            stop = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < stop:
                return
            self._buffer = self._buffer[stop:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if head.startswith(b"POST /send "):
            self._state.arrivals.append(time.monotonic())
            if self._state.delay_seconds:
                asyncio.get_running_loop().call_later(self._state.delay_seconds, self._write, _ACCEPTED)
            else:
                self._write(_ACCEPTED)
            return
        method, target, _ = head.split(b"\r\n", 1)[0].split(b" ", 2)
        body = b""
        if method == b"POST":
            self._state.arrivals = array("d")
            self._state.delay_seconds = float(urlsplit(target).query or 0)
        elif method == b"GET":
            arrivals = self._state.arrivals
            body = arrivals.tobytes() if target == b"/arrivals" else b"%d" % len(arrivals)
        self._write(_OK % (len(body), body))

    def _write(self, answer: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(answer)


async def serve() -> None:
    """Serve until killed."""
    state = State()
    server = await asyncio.get_running_loop().create_server(lambda: Exchange(state), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
