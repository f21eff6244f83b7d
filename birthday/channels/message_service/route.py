"""The route to the message service: direct or through a proxy, with or without TLS."""

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohappyeyeballs
from yarl import URL

from birthday.channels.message_service.connection import HttpConnection
from birthday.channels.message_service.writes import Writes

_NEXT_ADDRESS_SECONDS: Final = 0.25
"""How long to wait for one address of a name before the next one is tried in parallel (RFC 8305, section 5)."""
_KNOWN_SECONDS: Final = 5.0
"""How long the result of a look-up is used for new connections."""
_TUNNEL_BYTES_LIMIT: Final = 16 * 1024


class UnreachableError(Exception):
    """The server cannot be reached at the moment, and nothing has been sent. The text says why.

    ``status`` is the answer of a proxy that opens no tunnel. ``lacks`` names a resource that this host lacks.
    """

    def __init__(self, text: str, status: int | None = None, lacks: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.lacks = lacks


@dataclass(frozen=True, slots=True)
class Network:
    """Network settings from the environment. ``proxies`` is by scheme: ``http``, ``https`` or ``all``.

    ``no_proxy`` lists the hosts that are reached directly. ``authorities`` is a PEM file of trusted certificate
    authorities. Without it, those of the system are trusted.
    """

    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: str = ""
    authorities: Path | None = None

    def proxy_to(self, url: URL) -> URL | None:
        """Return the proxy for ``url``, or None if it is reached directly."""
        proxy = self.proxies.get(url.scheme) or self.proxies.get("all")
        host, port = url.raw_host or "", str(url.port)
        if not proxy or any(_covers(entry.strip(), host, port) for entry in self.no_proxy.split(",")):
            return None
        return URL(proxy)


def _covers(entry: str, host: str, port: str) -> bool:
    """Say whether an entry of NO_PROXY covers ``host``: ``*``, a name and its subdomains, an address or a network.

    A name or an address may be followed by a port.
    """
    if entry == "*":
        return True
    name, _, own_port = entry.rpartition(":")
    if own_port == port and (":" not in name or name.startswith("[")):
        entry = name
    entry = entry.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name = entry.lstrip(".").lower()
        return bool(name) and (host == name or host.endswith(f".{name}"))


class Route:
    """The route to the origin of one URL."""

    def __init__(self, url: URL, network: Network, accepts: Callable[[str], bool] | None = None) -> None:
        """Choose between a direct connection and a proxy, and load the certificate authorities.

        ``accepts`` says which IP addresses of the origin may be connected to; without it, all may.

        Raises:
            OSError: the file of certificate authorities cannot be read, or holds none (``ssl.SSLError`` is one too).
        """
        self.origin = url.origin()
        self._accepts = accepts
        self._looking_up = asyncio.Lock()
        self._addresses: list[Any] = []
        self._found_at = 0.0
        self.proxy = network.proxy_to(url)
        self.tls = None
        if url.scheme == "https":
            self.tls = ssl.create_default_context(cafile=network.authorities)
            self.tls.set_alpn_protocols(["http/1.1"])

    @property
    def prefix(self) -> str:
        """What precedes the path in a request line: a proxy that forwards requests needs the origin."""
        return "" if self.proxy is None or self.tls else str(self.origin)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that this route adds to each request."""
        headers = {"Host": self.origin.host_port_subcomponent or ""}
        return headers | (_credentials(self.proxy) if self.proxy and not self.tls else {})

    async def connect(self, writes: Writes) -> HttpConnection:
        """Return a new connection to the origin, with ``writes``. Concurrent calls share one look-up of its name.

        Raises:
            UnreachableError: if no connection can be made.
        """
        loop = asyncio.get_running_loop()
        try:
            wire = await self.dial()
            try:
                if self.proxy and self.tls:
                    await self._open_tunnel(wire)
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(loop, writes),
                    sock=wire,
                    ssl=self.tls,
                    server_hostname=self.origin.raw_host if self.tls else None,
                )
            except BaseException:
                wire.close()
                raise
        except OSError as error:
            self._addresses = []
            raise UnreachableError(explain(error), lacks=lacking(error)) from error
        return connection

    async def dial(self) -> socket.socket:
        """Return a socket that is connected to the origin, or to the proxy on the way.

        Raises:
            OSError: if no address can be reached.
            UnreachableError: if the look-up fails.
        """
        return await aiohappyeyeballs.start_connection(
            await self.look_up(),
            happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
            interleave=1,
            loop=asyncio.get_running_loop(),
        )

    async def look_up(self) -> list[Any]:
        """Return the addresses of the server or its proxy. A result is used for 5 s.

        Callers share a look-up, because the resolver has few threads and a burst opens many connections.

        Raises:
            UnreachableError: if the look-up fails.
        """
        loop = asyncio.get_running_loop()
        async with self._looking_up:
            if not self._addresses or loop.time() - self._found_at > _KNOWN_SECONDS:
                url = self.proxy or self.origin
                try:
                    found = await loop.getaddrinfo(url.raw_host, url.port, type=socket.SOCK_STREAM)
                except OSError as error:
                    raise UnreachableError(explain(error), lacks=lacking(error)) from error
                except RuntimeError as error:
                    # No thread could be started for the look-up.
                    raise UnreachableError(str(error), lacks="threads") from error
                if self._accepts is not None and self.proxy is None:
                    found = [one for one in found if self._accepts(str(one[4][0]))]
                    if not found:
                        raise UnreachableError(
                            "its address is of a private network, which EVENTS_ALLOW_PRIVATE does not allow"
                        )
                self._addresses, self._found_at = found, loop.time()
            return self._addresses

    async def _open_tunnel(self, wire: socket.socket) -> None:
        """Ask the proxy to connect to the origin (RFC 9110, section 9.3.6)."""
        loop = asyncio.get_running_loop()
        where = f"{self.origin.host_subcomponent}:{self.origin.port}"
        headers = {"Host": where} | (_credentials(self.proxy) if self.proxy else {})
        lines = [f"CONNECT {where} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        await loop.sock_sendall(wire, "\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = await loop.sock_recv(wire, 4096)
            answer += data
            if not data or len(answer) > _TUNNEL_BYTES_LIMIT:
                raise UnreachableError("the proxy gave no answer that could be understood")
        version, _, rest = answer.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest.startswith(b"2"):
            status = rest[:3].decode("ascii", "replace")
            answered = status if status.isdigit() else None
            raise UnreachableError(
                f"the proxy opens no tunnel, it answered {answered or 'nonsense'}", int(answered) if answered else None
            )


_RESOURCES: Final = {
    errno.EMFILE: "files",
    errno.ENFILE: "files",
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory",
    errno.ENOSPC: "disk",
    errno.EDQUOT: "disk",
    errno.EADDRNOTAVAIL: "ports",
    errno.EAGAIN: "ports",
}
_NAME_SERVICE: Final = {
    socket.EAI_AGAIN: "name service",
    socket.EAI_SYSTEM: "name service",
    socket.EAI_MEMORY: "memory",
}


def lacking(error: OSError) -> str | None:
    """Return the resource of this host whose lack caused ``error``, if any. Route and server are not at fault then."""
    known = _NAME_SERVICE if isinstance(error, socket.gaierror) else _RESOURCES
    return known.get(error.errno or 0)


def _credentials(proxy: URL) -> dict[str, str]:
    if proxy.user is None:
        return {}
    return {"Proxy-Authorization": basic_credentials(proxy)}


def basic_credentials(url: URL) -> str:
    """Return the user and password of ``url`` as the value of an Authorization header (RFC 7617)."""
    return "Basic " + b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()


def explain(error: OSError) -> str:
    """Return the system's error text, without the addresses and names that libraries add."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'the connection was closed'}"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else type(error).__name__
