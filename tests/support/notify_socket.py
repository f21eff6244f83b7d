"""The socket on which systemd hears its services."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """Yield a socket that hears what is told to ``address``: a path, or an abstract name that begins with ``@``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address.replace("@", "\0"))
        heard.settimeout(0)
        yield heard


async def hear(heard: socket.socket) -> list[str]:
    """Return the assignments of the next datagram, as soon as there is one."""
    async with asyncio.timeout(60):
        return (await asyncio.get_running_loop().sock_recv(heard, 4096)).decode().split("\n")
