"""The way to the message service: directly or through a proxy, in the clear or with TLS."""

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohappyeyeballs
from yarl import URL

from birthday.channels.message_service.connection import HttpConnection

_NEXT_ADDRESS_SECONDS: Final = 0.25
"""How long one address of a name may keep silent before the next one is tried beside it (RFC 8305, section 5)."""
_KNOWN_SECONDS: Final = 5.0
"""How long the addresses of a name are used for new connections."""
_TUNNEL_BYTES_LIMIT: Final = 16 * 1024


class UnreachableError(Exception):
    """There is no way to the server at the moment: nothing has been sent. The text says why, in the system's words.

    ``status`` is what a proxy answered that opens no tunnel; ``lacks`` what this host has none left of.
    """

    def __init__(self, text: str, status: int | None = None, lacks: str | None = None) -> None:
        """Keep what is passed in."""
        super().__init__(text)
        self.status = status
        self.lacks = lacks


@dataclass(frozen=True, slots=True)
class Network:
    """What the environment says about ways: ``proxies`` by scheme (``http``, ``https``, ``all``), hosts without, CAs.

    Without ``authorities``, a PEM file, those of the system are trusted.
    """

    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: str = ""
    authorities: Path | None = None

    def proxy_to(self, url: URL) -> URL | None:
        """Return the proxy that leads to ``url``, or None if it is reached directly."""
        proxy = self.proxies.get(url.scheme) or self.proxies.get("all")
        host, port = url.raw_host or "", str(url.port)
        if not proxy or any(_covers(entry.strip(), host, port) for entry in self.no_proxy.split(",")):
            return None
        return URL(proxy)


def _covers(entry: str, host: str, port: str) -> bool:
    """Say whether an entry of NO_PROXY stands for ``host``: ``*``, a name and all below it, an address, a network.

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
    """The way to the origin of one URL."""

    def __init__(self, url: URL, network: Network) -> None:
        """Choose it.

        Raises:
            OSError: the file of certificate authorities cannot be read, or holds none (``ssl.SSLError`` is one too).
        """
        self.origin = url.origin()
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
        """What stands before the path in a request line: a proxy that passes requests on has to be told where."""
        return "" if self.proxy is None or self.tls else str(self.origin)

    @property
    def headers(self) -> dict[str, str]:
        """What a request has to say on this way besides its own headers."""
        headers = {"Host": self.origin.host_port_subcomponent or ""}
        return headers | (_credentials(self.proxy) if self.proxy and not self.tls else {})

    async def connect(self) -> HttpConnection:
        """Return a new connection to the origin. Its name is looked up anew, once for all who connect at that time.

        Raises:
            UnreachableError: if there is none to be had.
        """
        loop = asyncio.get_running_loop()
        try:
            wire = await aiohappyeyeballs.start_connection(
                await self.look_up(), happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS, interleave=1, loop=loop
            )
            try:
                if self.proxy and self.tls:
                    await self._open_tunnel(wire)
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(loop),
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

    async def look_up(self) -> list[Any]:
        """Return the addresses of the server or its proxy. The resolver has few threads, and a burst connects many.

        Raises:
            UnreachableError: if there are none to be had.
        """
        loop = asyncio.get_running_loop()
        async with self._looking_up:
            if not self._addresses or loop.time() - self._found_at > _KNOWN_SECONDS:
                url = self.proxy or self.origin
                try:
                    self._addresses = await loop.getaddrinfo(url.raw_host, url.port, type=socket.SOCK_STREAM)
                except OSError as error:
                    raise UnreachableError(explain(error), lacks=lacking(error)) from error
                except RuntimeError as error:
                    # No thread to look it up in.
                    raise UnreachableError(str(error), lacks="threads") from error
                self._found_at = loop.time()
            return self._addresses

    async def _open_tunnel(self, wire: socket.socket) -> None:
        """Have the proxy connect to the origin (RFC 9110, section 9.3.6)."""
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
    """Return which resource of this host an error tells of, if any: neither the way nor the server is to blame."""
    known = _NAME_SERVICE if isinstance(error, socket.gaierror) else _RESOURCES
    return known.get(error.errno or 0)


def _credentials(proxy: URL) -> dict[str, str]:
    if proxy.user is None:
        return {}
    return {"Proxy-Authorization": basic_credentials(proxy)}


def basic_credentials(url: URL) -> str:
    """Return the user and password of ``url`` as Authorization takes them (RFC 7617)."""
    return "Basic " + b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()


def explain(error: OSError) -> str:
    """Return the system's words: what others add, such as addresses and names, says no more."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'the connection was closed'}"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else type(error).__name__
