"""Load for the API, from a process of its own: so many connections, each with one request in flight all the time.

Run as ``python -m benchmarks.http_load create|greet|read CONNECTIONS SECONDS PORT...``; ``greet`` creates users who
have their birthday today. Several servers take turns in slices of half a second, so that whatever else the
machine does meanwhile is done to all of them. It reads the ids of users from standard input, one a line, and prints an
array of JSON objects, one for each server: requests answered a second, their latency in milliseconds, and the seconds
of a processor that each process of the run took meanwhile. An answer that is no success ends it.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count, cycle
from random import Random
from statistics import quantiles
from typing import Any, cast

import uvloop

from benchmarks.busy import Reading

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Tokyo", "UTC")
WARM_UP_SECONDS = 0.5
SLICE_SECONDS = 0.5


def creations(*, born_today: bool) -> Iterator[bytes]:
    """Yield requests that create users, no two with the same e-mail address, not even of two runs."""
    random = Random()  # noqa: S311 - test data
    run = random.getrandbits(48)
    today = datetime.now(UTC)
    for number in count():
        born = (
            f"1988-{today:%m-%d}"
            if born_today
            else f"{random.randrange(1945, 2010)}-{random.randrange(1, 13):02}-{random.randrange(1, 29):02}"
        )
        body = json.dumps(
            {
                "firstName": "Ada",
                "lastName": "Lovelace",
                "email": f"ada{number}.{run}@example.com",
                "dateOfBirth": born,
                "timezone": "UTC" if born_today else _ZONES[number % len(_ZONES)],
            }
        )
        yield (
            "POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


def readings(ids: list[str]) -> Iterator[bytes]:
    """Yield requests that read one user after the other."""
    for user_id in cycle(ids):
        yield f"GET /users/{user_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Client(asyncio.Protocol):
    """One connection. It notes how long each answer took, and rests between two slices of time."""

    def __init__(self, requests: Iterator[bytes], target: "Target") -> None:
        """Share requests with all connections, and the notes with those to the same server."""
        self._requests = requests
        self._target = target
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first slice."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Tell the server's target as soon as the answer is complete."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end + 2)
        if len(self._buffer) < end + 4 + (int(length[1]) if length else 0):
            return
        if not self._buffer.startswith(b"HTTP/1.1 20"):
            sys.exit(f"not a success: {self._buffer!r}")
        self._target.taken.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        self._target.busy -= 1
        self._target.answered(self)

    def send(self, due: float | None = None) -> None:
        """Send one request, whose time counts from when it was due, or else from now."""
        self._target.busy += 1
        self._sent_at = due or time.perf_counter()
        self._transport.write(next(self._requests))


class Target:
    """One server under load: its connections, and how long its answers took."""

    def __init__(self) -> None:
        """Start without a connection."""
        self.clients: list[Client] = []
        self.taken: list[float] = []
        self.seconds = 0.0
        self.processor: Counter[str] = Counter()
        self.open = False
        self.busy = 0
        self.idle = asyncio.Event()

    def answered(self, client: Client) -> None:
        """Let a connection that has its answer send the next request, unless the slice is over."""
        if self.open:
            client.send()
        elif not self.busy:
            self.idle.set()

    async def connect(self, port: int, connections: int, requests: Iterator[bytes]) -> None:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, client = await loop.create_connection(lambda: Client(requests, self), "127.0.0.1", port)
            self.clients.append(client)

    async def slice(self, seconds: float) -> None:
        """Keep one request in flight on each connection for so long, then wait for the last answers."""
        began = Reading.take(os.getppid())
        started = time.perf_counter()
        self.open = True
        self.idle.clear()
        for client in self.clients:
            client.send()
        await asyncio.sleep(seconds)
        self.open = False
        await self.idle.wait()
        self.seconds += time.perf_counter() - started
        self.processor.update(began.until(Reading.take(os.getppid())).processor)

    def measured(self) -> dict[str, Any]:
        """Return the rate, the latencies in milliseconds, and what all that took."""
        hundredths = quantiles([1000 * seconds for seconds in self.taken], n=100)
        latencies = {"p50_ms": hundredths[49], "p99_ms": hundredths[98]}
        return {"rate": len(self.taken) / self.seconds} | latencies | {"took": [self.seconds, self.processor]}


async def load(requests: Iterator[bytes], ports: list[int], connections: int, seconds: float) -> list[dict[str, Any]]:
    """Put each server under load for so long, in slices that take turns, and return what was measured of each."""
    targets = [Target() for _ in ports]
    for target, port in zip(targets, ports, strict=True):
        await target.connect(port, connections, requests)
        await target.slice(WARM_UP_SECONDS)
        target.taken, target.seconds, target.processor = [], 0.0, Counter()
    for _ in range(round(seconds / SLICE_SECONDS)):
        for target in targets:
            await target.slice(SLICE_SECONDS)
    return [target.measured() for target in targets]


if __name__ == "__main__":
    _kind, _connections, _seconds, *_ports = sys.argv[1:]
    _ids = sys.stdin.read().split()
    _requests = readings(_ids) if _kind == "read" else creations(born_today=_kind == "greet")
    print(json.dumps(uvloop.run(load(_requests, [int(port) for port in _ports], int(_connections), float(_seconds)))))
