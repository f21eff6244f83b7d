"""Connections to the message service, kept between greetings.

A session is small because it serves one purpose: a fixed number of slots that POST to one origin. It follows no
redirects, keeps no cookies, and never repeats a request.
"""

import asyncio
import time
from datetime import timedelta
from typing import Protocol

from birthday.channels.idle import IdleConnections
from birthday.channels.message_service.connection import HttpConnection, Response
from birthday.channels.message_service.route import Route, UnreachableError
from birthday.channels.message_service.writes import Writes


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

    async def ask_alone(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` over a connection of its own, which is closed afterwards. Raises as ``ask`` does."""

    async def close(self) -> None:
        """Close idle connections now, and connections in use as soon as their answers have come."""


class Session:
    """Connections over one route. For one event loop. The caller must close it.

    Deadlines are in the time of ``time.monotonic``. The loop's time is of the same clock, but that of the beginning of
    its turn.
    """

    def __init__(self, route: Route, most_idle: int) -> None:
        """Connect when asked, and keep up to ``most_idle`` connections for the next request."""
        self.route = route
        self._idle = IdleConnections[HttpConnection](most_idle)
        self._writes = Writes()

    async def ask(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` once; see ``Client``."""
        deadline = time.monotonic() + patience.total_seconds()
        connection = self._idle.take()
        if connection is None:
            connection = await self._connect(deadline)
        try:
            answer = await connection.ask(request, deadline)
        except BaseException:
            connection.abort()
            raise
        self._idle.keep(connection)
        return answer

    async def ask_alone(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` over a connection of its own; see ``Client``."""
        deadline = time.monotonic() + patience.total_seconds()
        connection = await self._connect(deadline)
        try:
            return await connection.ask(request, deadline)
        finally:
            connection.abort()

    async def try_connection(self, patience: timedelta) -> None:
        """Connect, and send nothing.

        Raises:
            UnreachableError: no connection could be made.
        """
        (await self._connect(time.monotonic() + patience.total_seconds())).abort()

    async def close(self) -> None:
        """Close the connections; see ``Client``."""
        self._idle.close()

    async def _connect(self, deadline: float) -> HttpConnection:
        try:
            async with asyncio.timeout_at(deadline):
                await self.route.look_up()
        except TimeoutError:
            raise UnreachableError("the name was not looked up in time", lacks="name service") from None
        try:
            async with asyncio.timeout_at(deadline):
                return await self.route.connect(self._writes)
        except TimeoutError:
            # Unlike a missing answer, this means that nothing has been sent.
            raise UnreachableError("no connection in time") from None
