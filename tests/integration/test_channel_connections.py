"""Connections to servers that answer in odd ways: what an answer is, and which connection may be used again."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from yarl import URL

from birthday.channels.message_service.connection import BrokenConnectionError, Response
from birthday.channels.message_service.route import Network, Route, UnreachableError
from birthday.channels.message_service.session import Session
from birthday.channels.message_service.writes import TOGETHER

PATIENCE = timedelta(seconds=5)
REQUEST = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server that answers each request on a connection with the next of ``parts``, and counts its connections."""

    def __init__(self, *parts: bytes) -> None:
        """Keep what to say."""
        self.connections = 0
        self.heads: list[bytes] = []
        self._parts = list(parts)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends, or there is nothing left to say."""
        self.connections += 1
        try:
            while self._parts:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self._parts.pop(0))
                await writer.drain()
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            # The client is done with this connection.
            return
        finally:
            writer.close()


@asynccontextmanager
async def connect(talk: Talk, network: Network | None = None, url: str | None = None) -> AsyncIterator[Session]:
    """Yield a session with a server that talks like that."""
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        here = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        proxied = Network({"all": here.replace("//", "//ada:s3cret@")}) if url else Network()
        session = Session(Route(URL(url or here), network or proxied), 10)
        try:
            yield session
        finally:
            await session.close()


class TestAnswers:
    """What is an answer."""

    @pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nRetry-After: 9\r\n\r\n"])
    async def test_interim(self, interim: bytes) -> None:
        """What comes before the answer proper is none, and its headers are not those of the answer."""
        server = Server(interim + OK, OK)
        async with connect(server.talk) as session:
            answers = [await session.ask(REQUEST, PATIENCE) for _ in range(2)]

        assert answers == [Response(200, None), Response(200, None)]
        assert server.connections == 1

    async def test_chunked(self) -> None:
        """A chunked body ends where it says, and the connection goes on."""
        chunked = b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        server = Server(chunked, OK)
        async with connect(server.talk) as session:
            assert await session.ask(REQUEST, PATIENCE) == Response(202, None)
            assert await session.ask(REQUEST, PATIENCE) == Response(200, None)

        assert server.connections == 1

    @pytest.mark.parametrize("line", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n"])
    async def test_closing(self, line: bytes) -> None:
        """A server that says it will close the connection is not asked over it again."""
        server = Server(line + b"Content-Length: 0\r\n\r\n", OK)
        async with connect(server.talk) as session:
            for _ in range(2):
                assert await session.ask(REQUEST, PATIENCE) == Response(200, None)

        assert server.connections == 2

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "the answer is in another protocol"),
            (b"HTTP/1.1 2O0 OK\r\n\r\n", "the answer is no HTTP"),
            (b"HTTP/2 200\r\n\r\n", "the answer is no HTTP"),
            (b"HTTP/1.1 099 X\r\n\r\n", "the answer is no HTTP"),
            (b"HTTP/1.1 2000 OK\r\n\r\n", "the answer is no HTTP"),
            (b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "the answer is no HTTP"),
            (b"<html>200 OK</html>", "the answer is no HTTP"),
            (b"HTTP/1.1 200 " + b"x" * 200_000, "the answer is too long, and has no status"),
            (b"HTTP/1.1 103 X\r\nX: " + b"x" * 200_000, "the answer is too long, and has no status"),
        ],
    )
    async def test_nonsense(self, answer: bytes, text: str) -> None:
        """What is no HTTP/1.1 answer breaks the connection, and the next request has another one."""
        server = Server(answer, OK)
        async with connect(server.talk) as session:
            with pytest.raises(BrokenConnectionError, match=f"^{text}$"):
                await session.ask(REQUEST, PATIENCE)

            assert await session.ask(REQUEST, PATIENCE) == Response(200, None)

        assert server.connections == 2

    async def test_uncalled_for(self) -> None:
        """A second answer to one request belongs to no other: the connection is given up."""
        server = Server(OK + b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", OK)
        async with connect(server.talk) as session:
            assert await session.ask(REQUEST, PATIENCE) == Response(200, None)
            assert await session.ask(REQUEST, PATIENCE) == Response(200, None)

        assert server.connections == 2

    async def test_goodbye(self) -> None:
        """What a server says on an idle connection, before it closes it, is nobody's answer."""
        said = asyncio.Event()
        connections = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            if connections == 1:
                # The client reads the answer first: only then is the connection idle.
                await answered.wait()
                writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
                await reader.read()
                said.set()
            writer.close()

        answered = asyncio.Event()
        async with connect(talk) as session:
            assert await session.ask(REQUEST, PATIENCE) == Response(200, None)
            answered.set()
            # The client has taken what was said, and closed the connection for it.
            await said.wait()
            assert await session.ask(REQUEST, PATIENCE) == Response(200, None)

        assert connections == 2


class TestTunnel:
    """The proxy on the way to a service with TLS."""

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy opens no tunnel, it answered 407"),
            (b"HTTP/1.1 502 X\r\nContent-Length: 5\r\n\r\nsorry", "the proxy opens no tunnel, it answered 502"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "the proxy opens no tunnel, it answered nonsense"),
            (b"x" * 20_000, "the proxy gave no answer that could be understood"),
        ],
    )
    async def test_refused(self, answer: bytes, text: str) -> None:
        """A proxy that opens no tunnel is no way, says so, and was told who asks."""
        server = Server(answer)
        async with connect(server.talk, url="https://message-service.invalid") as session:
            with pytest.raises(UnreachableError, match=f"^{text}$"):
                await session.ask(REQUEST, PATIENCE)

        assert server.heads[0].startswith(b"CONNECT message-service.invalid:443 HTTP/1.1\r\n")
        assert b"\r\nProxy-Authorization: Basic YWRhOnMzY3JldA==\r\n" in server.heads[0]

    async def test_silent(self) -> None:
        """A proxy that says nothing takes no longer than the request may."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with connect(talk, url="https://message-service.invalid") as session:
            with pytest.raises(UnreachableError, match=r"^no connection in time$"):
                await session.ask(REQUEST, timedelta(milliseconds=200))


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("http://mail.example.com", "", True),
        ("http://mail.example.com", "example.com", False),
        ("http://mail.example.com", " other.org , .EXAMPLE.com", False),
        ("http://mail.example.com", "mail.example.com.evil.org,ple.com", True),
        ("http://10.1.2.3", "10.0.0.0/8", False),
        ("http://10.1.2.3", "10.1.2.4,192.168.0.0/16", True),
        ("http://[::1]:8080", "::1", False),
        ("http://[::1]:8080", "[::1]:8080", False),
        ("http://mail.example.com:8080", "mail.example.com:8080", False),
        ("http://mail.example.com:8080", "mail.example.com:9090", True),
        ("http://mail.example.com", "*", False),
        ("https://mail.example.com", "", False),
    ],
)
def test_proxy(url: str, no_proxy: str, *, proxied: bool) -> None:
    """A proxy is for its scheme, and not for the hosts of NO_PROXY: names and all below them, addresses, networks."""
    network = Network({"http": "http://proxy.example.com:3128"}, no_proxy)

    assert network.proxy_to(URL(url)) == (URL("http://proxy.example.com:3128") if proxied else None)


def test_authorities_missing() -> None:
    """A file of authorities that is not there is noticed before the first greeting."""
    with pytest.raises(OSError, match="No such file"):
        Route(URL("https://mail.example.com"), Network(authorities=Path("/nonexistent/authorities.pem")))


async def test_connections_of_a_session_write_their_requests_together() -> None:
    """A full set is written at once, whichever connections its requests belong to."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        session = Session(Route(URL(f"http://127.0.0.1:{listener.getsockname()[1]}"), Network()), TOGETHER)
        readers: list[socket.socket] = []
        try:
            # Each opens a connection, and leaves it for the second time.
            asking = [asyncio.create_task(session.ask(REQUEST, PATIENCE)) for _ in range(TOGETHER)]
            for _ in asking:
                reader, _ = await loop.sock_accept(listener)
                readers.append(reader)
                assert await loop.sock_recv(reader, 1000) == REQUEST
            for reader in readers:
                await loop.sock_sendall(reader, OK)
            await asyncio.gather(*asking)
            asking = [asyncio.create_task(session.ask(REQUEST, PATIENCE)) for _ in range(TOGETHER)]
            await asyncio.sleep(0)
            # Whoever waits for it here keeps the loop from its next turn.
            for reader in readers:
                reader.settimeout(1)
                assert reader.recv(1000) == REQUEST
                reader.sendall(OK)
            assert await asyncio.gather(*asking) == [Response(200, None)] * TOGETHER
        finally:
            await session.close()
            for reader in readers:
                reader.close()
