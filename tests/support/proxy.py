"""A network to test against: a TCP proxy on the loopback interface that can be cut, slowed down, reset and silenced."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

CHUNK_BYTES = 256 * 1024
_CONNECT_SECONDS = 5
# Makes close() send RST instead of FIN.
_LINGER_NOT = struct.pack("ii", 1, 0)


class Proxy:
    """Stands between a client and the server at ``host`` and ``port``; the client connects to ``self.port`` instead.

    ``host`` may be the directory of a PostgreSQL's Unix socket. What is done to the network stays until ``heal``.
    """

    def __init__(self, host: str, port: int) -> None:
        """Keep where the server is; nothing listens before ``start``."""
        self.port = 0
        self.delay = timedelta()
        """How much longer each piece of data takes, in either direction."""
        self.holding = asyncio.Event()
        """Set once ``hold_at`` has caught something."""
        self._host = host
        self._server_port = port
        self._markers: tuple[bytes, ...] = ()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[_Link] = set()
        self._listener: asyncio.Server | None = None

    async def start(self) -> Self:
        """Listen, on the same port each time."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=CHUNK_BYTES)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Close the port and break every connection."""
        if self._listener:
            self._listener.close()
            self._listener = None
        self.reset()
        while self._links:
            await asyncio.gather(*(link.ended.wait() for link in self._links))

    async def __aenter__(self) -> Self:
        """Start."""
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def reset(self) -> None:
        """Break every connection there is now, with RST to both sides; new ones work."""
        for link in self._links:
            link.abort()

    def end(self) -> None:
        """End every connection there is now, with FIN to both sides, as if each had been told all there is to tell."""
        for link in self._links:
            for writer in link.writers:
                writer.close()

    async def cut(self) -> None:
        """Break every connection and refuse new ones."""
        await self.stop()

    def silence(self) -> None:
        """Accept connections and data, keep what is open open, and forward nothing: a black hole."""
        self._flowing.clear()

    def lose(self) -> None:
        """Never forward anything again on the connections there are now, and tell nobody; new ones work."""
        for link in self._links:
            link.flowing = asyncio.Event()

    def hold_at(self, *markers: bytes) -> None:
        """Go silent once the client sends these on one connection, one after the other, before the last is through."""
        self.holding.clear()
        self._markers = markers
        for link in self._links:
            link.expected = deque(markers)

    async def heal(self) -> None:
        """Work again: what was silenced is forwarded, as TCP does after an outage. What was lost stays lost."""
        self.delay = timedelta()
        self._markers = ()
        self._flowing.set()
        if self._listener is None:
            await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self._flowing, writer, deque(self._markers))
        self._links.add(link)
        try:
            # A silent network does not even let a connection through to the server.
            await self._passes(link)
            server_reader, server_writer = await self._connect()
            link.writers.append(server_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, reader, server_writer, watched=True))
                pumps.create_task(self._pump(link, server_reader, writer, watched=False))
        except* (OSError, _BrokenError):
            pass
        finally:
            link.abort()
            self._links.discard(link)
            link.ended.set()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(_CONNECT_SECONDS):
            if self._host.startswith("/"):
                path = Path(self._host) / f".s.PGSQL.{self._server_port}"
                return await asyncio.open_unix_connection(str(path), limit=CHUNK_BYTES)
            return await asyncio.open_connection(self._host, self._server_port, limit=CHUNK_BYTES)

    async def _pump(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool
    ) -> None:
        """Forward one direction until it ends. A half-closed connection is closed: no protocol here needs one."""
        while data := await reader.read(CHUNK_BYTES):
            if watched and self._markers:
                self._watch(link, data)
            await self._passes(link)
            writer.write(data)
            await writer.drain()
        raise _BrokenError

    def _watch(self, link: "_Link", data: bytes) -> None:
        while link.expected and link.expected[0] in data:
            link.expected.popleft()
            if not link.expected:
                self._markers = ()
                self.silence()
                self.holding.set()

    async def _passes(self, link: "_Link") -> None:
        """Return when a piece of data gets through."""
        if self.delay:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.delay.total_seconds()):
                    await link.broken.wait()
        if not link.flowing.is_set():
            flowing = asyncio.ensure_future(link.flowing.wait())
            broken = asyncio.ensure_future(link.broken.wait())
            try:
                await asyncio.wait({flowing, broken}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                flowing.cancel()
                broken.cancel()
        if link.broken.is_set():
            raise _BrokenError


class _BrokenError(Exception):
    """A connection is over."""


class _Link:
    """One connection through the proxy: both sides of it."""

    def __init__(self, flowing: asyncio.Event, client: asyncio.StreamWriter, expected: deque[bytes]) -> None:
        self.flowing = flowing
        self.expected = expected
        self.broken = asyncio.Event()
        self.ended = asyncio.Event()
        self.writers = [client]

    def abort(self) -> None:
        self.broken.set()
        while self.writers:
            writer = self.writers.pop()
            if writer.is_closing():
                continue
            raw: socket.socket | None = writer.get_extra_info("socket")
            if raw is not None and raw.family is not socket.AF_UNIX:
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            writer.transport.abort()


@dataclass(frozen=True, slots=True)
class Network:
    """What stands between processes and the servers, and the settings that lead them there."""

    database: Proxy
    queue: Proxy
    """The same as ``database`` where the queue is kept there."""
    service: Proxy
    settings: dict[str, str]

    async def cut(self) -> None:
        """Break everything: what the kernel does for a process that is killed."""
        await asyncio.gather(*(proxy.cut() for proxy in {self.database, self.queue, self.service}))


@asynccontextmanager
async def network(database_url: str, queue_url: str | None, service_url: str) -> AsyncIterator[Network]:
    """Yield a network to these servers that works until something is done to it."""
    async with AsyncExitStack() as stack:
        at = urlsplit(database_url)
        directory, _, port = at.netloc.rpartition("@")[2].rpartition(":")
        database = queue = await stack.enter_async_context(Proxy(unquote(directory), int(port)))
        service = await stack.enter_async_context(Proxy("127.0.0.1", urlsplit(service_url).port or 0))
        settings = {
            "DATABASE_URL": at._replace(netloc=f"{at.username}@127.0.0.1:{database.port}").geturl(),
            "MESSAGE_SERVICE_URL": f"http://127.0.0.1:{service.port}",
        }
        if queue_url is not None:
            at = urlsplit(queue_url)
            queue = await stack.enter_async_context(Proxy("127.0.0.1", at.port or 0))
            place = f"{at.username}:{at.password}@127.0.0.1:{queue.port}"
            settings["RABBITMQ_URL"] = at._replace(netloc=place).geturl()
        yield Network(database, queue, service, settings)
