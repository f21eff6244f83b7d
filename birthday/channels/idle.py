"""Connections that are kept between greetings."""

import asyncio
import time
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

_IDLE_SECONDS: Final = 15.0
"""How long an unused connection is kept: shorter than most servers keep theirs."""
_LONGEST_USE_SECONDS: Final = 60.0
"""How long a connection is used at most. A new one looks the name up again, so a service that moves is found."""


class Connection(Protocol):
    """A connection that can be used again. Instants are in the loop's time."""

    opened_at: float
    idle_since: float
    reusable: bool
    """Whether the last exchange is complete."""

    @property
    def is_open(self) -> bool:
        """Whether there is still a transport to write to."""

    def abort(self) -> None:
        """Close the connection at once."""


Kept = TypeVar("Kept", bound=Connection)


class IdleConnections(Generic[Kept]):
    """The unused connections of one channel, ``most`` of them. For one event loop. The caller must close it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: deque[Kept] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def take(self) -> Kept | None:
        """Return the connection that was used last. So surplus connections of a burst become idle and are closed."""
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.reusable and now - connection.idle_since < _IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    def keep(self, connection: Kept) -> None:
        """Keep a connection for the next greeting, or close it: if it cannot be used again, is old or is surplus."""
        now = connection.idle_since = time.monotonic()
        is_old = now - connection.opened_at > _LONGEST_USE_SECONDS
        if self._closed or not connection.reusable or is_old or len(self._idle) >= self._most:
            connection.abort()
            return
        self._idle.append(connection)
        if self._sweep is None:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(_IDLE_SECONDS, self._close_unused, loop)

    def close(self) -> None:
        """Close the connections now, and those in use as soon as they are handed to ``keep``."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._idle.pop().abort()

    def _close_unused(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._idle and time.monotonic() - self._idle[0].idle_since >= _IDLE_SECONDS:
            self._idle.popleft().abort()
        self._sweep = loop.call_later(_IDLE_SECONDS, self._close_unused, loop) if self._idle else None
