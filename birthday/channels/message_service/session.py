"""Connections to the message service, kept between greetings.

A session is small because it serves one purpose: a fixed number of slots that POST to one origin. It follows no
redirects, keeps no cookies, and never repeats a request.
"""

import asyncio
from collections import deque
from datetime import timedelta
from typing import Final, Protocol

from birthday.channels.message_service.connection import HttpConnection, Response
from birthday.channels.message_service.route import Route, UnreachableError

_IDLE_SECONDS: Final = 15.0
"""How long an unused connection is kept: shorter than most servers keep theirs."""
_LONGEST_USE_SECONDS: Final = 60.0
"""How long a connection is used at most. A new one looks the name up again, so a service that moves is found."""


class Client(Protocol):
    """What a channel needs of an HTTP client: our own ``Session``, or the one with aiohttp in ``plain.py``."""

    route: Route

    async def ask(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` once, over an idle or a new connection. Connecting counts against ``patience``.

        Raises:
            TimeoutError: no answer in time.
            UnreachableError: no connection could be made. Nothing has been sent.
            BrokenConnectionError: the connection ended without an answer. The request may have arrived.
        """
        ...

    async def ask_alone(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` over a connection of its own, which is closed afterwards. Raises as ``ask`` does."""
        ...

    async def close(self) -> None:
        """Close idle connections now, and connections in use as soon as their answers have come."""
        ...


class Session:
    """Connections over one route. For one event loop. The caller must close it."""

    def __init__(self, route: Route, most_idle: int) -> None:
        """Connect when asked, and keep up to ``most_idle`` connections for the next request."""
        self.route = route
        self._most_idle = most_idle
        self._idle: deque[HttpConnection] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    async def ask(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` once; see ``Client``."""
        deadline = asyncio.get_running_loop().time() + patience.total_seconds()
        connection = self._take()
        if connection is None:
            connection = await self._connect(deadline)
        try:
            answer = await connection.ask(request, deadline)
        except BaseException:
            connection.abort()
            raise
        self._keep(connection)
        return answer

    async def ask_alone(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` over a connection of its own; see ``Client``."""
        deadline = asyncio.get_running_loop().time() + patience.total_seconds()
        connection = await self._connect(deadline)
        try:
            return await connection.ask(request, deadline)
        finally:
            connection.abort()

    async def close(self) -> None:
        """Close the connections; see ``Client``."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._idle.pop().abort()

    async def _connect(self, deadline: float) -> HttpConnection:
        try:
            async with asyncio.timeout_at(deadline):
                await self.route.look_up()
        except TimeoutError:
            raise UnreachableError("the name was not looked up in time", lacks="name service") from None
        try:
            async with asyncio.timeout_at(deadline):
                return await self.route.connect()
        except TimeoutError:
            # Unlike a missing answer, this means that nothing has been sent.
            raise UnreachableError("no connection in time") from None

    def _take(self) -> HttpConnection | None:
        """Return the connection that was used last. So surplus connections of a burst become idle and are closed."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and connection.reusable and now - connection.idle_since < _IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: HttpConnection) -> None:
        if not connection.reusable:
            return
        loop = asyncio.get_running_loop()
        now = connection.idle_since = loop.time()
        if self._closed or len(self._idle) >= self._most_idle or now - connection.opened_at > _LONGEST_USE_SECONDS:
            connection.abort()
            return
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(_IDLE_SECONDS, self._close_unused, loop)

    def _close_unused(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._idle and loop.time() - self._idle[0].idle_since >= _IDLE_SECONDS:
            self._idle.popleft().abort()
        self._sweep = loop.call_later(_IDLE_SECONDS, self._close_unused, loop) if self._idle else None
