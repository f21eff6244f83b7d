"""TCP time limits of a connection: a host that vanishes without a word is noticed although nothing is sent."""

import asyncio
import socket
from typing import Final

# A peer is lost 25 s after the last sign of life, or 20 s after data that it has not acknowledged.
_LIMITS: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
"""Seconds, and milliseconds for the last one. Systems that lack an option do without it."""


def limit_silence(transport: asyncio.BaseTransport) -> None:
    """Let the kernel end the connection within 30 s once the peer is silent. A Unix socket needs no limit."""
    connected = transport.get_extra_info("socket")
    if connected is None or connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _LIMITS.items():
        option = getattr(socket, name, None)
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
