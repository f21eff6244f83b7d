"""The listening socket, and a server on it that completes running requests before it ends."""

import asyncio
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from functools import partial
from typing import Any, cast

import structlog
from aiohttp import StreamReader, web

from birthday.errors import UnavailableError
from birthday.http.connection import ClientConnection
from birthday.http.context import IS_TRUSTED, REFUSALS
from birthday.http.limits import Connections, Limits
from birthday.http.route import Handler
from birthday.http.shortcuts import with_shortcuts

log = structlog.get_logger()

BACKLOG = 1024
LINGER = timedelta(seconds=0.5)
GRACE = timedelta(seconds=10)

_ATTACH_FILTER = 26
"""Linux's SO_ATTACH_FILTER, which the module ``socket`` lacks."""
_DROP_NEW_CONNECTIONS = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone: go on; anything else: skip one
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFF),  # pass
    )
)
"""A filter in classic BPF, see socket(7) and the kernel's filter.rst."""


@asynccontextmanager
async def serve(
    app: web.Application,
    host: str,
    port: int,
    grace: timedelta = GRACE,
    limits: Limits | None = None,
    linger: timedelta = LINGER,
) -> AsyncIterator[tuple[str, int]]:
    """Serve ``app`` within the context and yield the address; several processes may share it. Port 0 picks a free one.

    On exit, new connections go to the processes that share the port. Clients that are already connected are not cut
    off: their requests have ``linger`` to come, and ``grace`` to end.

    Raises:
        UnavailableError: if the address cannot be listened on; the text says what to set.
    """
    connections = Connections(limits or Limits(), app.get(IS_TRUSTED, lambda _address: False))
    with closing(await _listen(host, port)) as listener:
        # aiohttp waits that long twice: for the answers, then for clients that are still sending.
        stages = grace.total_seconds() / 2
        pause = linger.total_seconds() / 2
        runner = web.AppRunner(app, shutdown_timeout=stages, access_log=None)
        await runner.setup()
        connect = _connect(app, cast("web.Server", runner.server), connections)
        server = await asyncio.get_running_loop().create_server(connect, sock=listener, backlog=BACKLOG)
        async with connections.watched():
            try:
                bound_host, bound_port = listener.getsockname()[:2]
                yield bound_host, bound_port
                turn_away(listener)
                await asyncio.sleep(pause)
                server.close()
                # A client that has just connected is about to send a request; aiohttp would close its connection.
                await asyncio.sleep(pause)
            finally:
                server.close()
                await runner.cleanup()


def _connect(app: web.Application, server: web.Server, connections: Connections) -> Callable[[], ClientConnection]:
    """Return the factory that makes a ``ClientConnection`` for each new connection, instead of aiohttp's own."""
    make_request = server.request_factory

    def begin(message: Any, body: StreamReader, connection: Any, *rest: Any) -> web.BaseRequest:  # noqa: ANN401 - private types
        return make_request(connection.begin(message, body), body, connection, *rest)

    server.request_factory = begin
    server.request_handler = cast("Any", with_shortcuts(app, cast("Handler", server.request_handler)))
    return partial(
        ClientConnection, server, connections, app.get(REFUSALS, lambda _answer, _id, _reason, _client: None)
    )


async def _listen(host: str, port: int) -> socket.socket:
    try:
        resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = resolved[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise UnavailableError("listener", f"cannot listen on HOST={host} PORT={port}: {_advice(error)}") from None
    listener.settimeout(0)
    return listener


def turn_away(listener: socket.socket) -> None:
    """Ignore new connection attempts from now on; connections in the queue of the socket can still be accepted.

    Closing a listener resets the connections in its queue, and while the port is shared, new ones keep coming. TCP
    repeats an ignored attempt after a second, and once this listener is closed, the kernel sends it to another process.
    This works on Linux only, and some kernels and sandboxes require CAP_NET_ADMIN. Elsewhere, connections may be lost
    while the port is closed.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_NEW_CONNECTIONS, len(_DROP_NEW_CONNECTIONS))
    length = len(_DROP_NEW_CONNECTIONS) // struct.calcsize("HBBI")
    try:
        listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", length, ctypes.addressof(program)))
    except OSError as error:
        log.info("listener.filter_refused", reason=error.strerror)


def _advice(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    if error.errno == errno.EADDRINUSE:
        return f"{reason}; set PORT to a free port, or to 0 for any"
    if error.errno == errno.EACCES:
        return f"{reason}; set PORT to one from 1024 to 65535"
    return f"{reason}; set HOST to an address of this machine, such as 127.0.0.1 or 0.0.0.0"
