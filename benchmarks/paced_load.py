"""Load for the API at a fixed rate, from a process of its own: users are created, one after the other, each when due.

Run as ``python -m benchmarks.paced_load CONNECTIONS RATE SECONDS PORT``. The time of a request counts from when it is
due, so that one that waits for a free connection waits in the figures too. It prints an object like ``http_load``.
"""

import asyncio
import json
import os
import sys
import time
from collections import deque

import uvloop

from benchmarks.busy import Reading
from benchmarks.http_load import Client, Target, creations


class PacedTarget(Target):
    """A server that gets requests when they are due, and not when it has answered."""

    def __init__(self) -> None:
        """Start with nothing due."""
        super().__init__()
        self.due: deque[float] = deque()
        self.free: list[Client] = []

    def answered(self, client: Client) -> None:
        """Take a connection back, and send what has become due meanwhile."""
        self.free.append(client)
        self.send_due()
        if not (self.open or self.busy):
            self.idle.set()

    def send_due(self) -> None:
        """Send what is due, as far as there are connections that are free."""
        while self.due and self.free:
            self.free.pop().send(self.due.popleft())

    async def pace(self, rate: float, seconds: float) -> None:
        """Send so many requests a second for so long, then wait for the last answers."""
        self.free = list(self.clients)
        self.open = True
        began = Reading.take(os.getppid())
        started = time.perf_counter()
        for number in range(round(rate * seconds)):
            due = started + number / rate
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            self.due.append(due)
            self.send_due()
        self.open = False
        if self.busy:
            await self.idle.wait()
        self.seconds = time.perf_counter() - started
        self.processor.update(began.until(Reading.take(os.getppid())).processor)


async def load(connections: int, rate: float, seconds: float, port: int) -> dict[str, object]:
    """Put a server under load, and return what was measured of it."""
    target = PacedTarget()
    await target.connect(port, connections, creations(born_today=False))
    await target.pace(rate, seconds)
    return target.measured()


if __name__ == "__main__":
    print(json.dumps(uvloop.run(load(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))))
