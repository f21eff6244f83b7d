"""Clients that are slow, silent or too many: each is cut in time, and nobody else has to wait for them."""

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing, suppress
from itertools import pairwise
from time import perf_counter

import asyncpg
import pytest
from aiohttp import web

from birthday.http.limits import Limits
from birthday.http.server import serve
from tests.support.api import Api, running_api

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
IMPATIENT = Limits(head=0.3, body=0.3, idle=0.6, unread=0.5, lingering=0.2)
SILENT = 2000


async def hello(_request: web.Request) -> web.Response:
    """Answer at once."""
    return web.Response(text="hello")


async def echo(request: web.Request) -> web.Response:
    """Answer when the body has come."""
    return web.Response(text=f"{len(await request.read())} bytes")


def application() -> web.Application:
    """Return an application that answers a GET at once, and reads what is posted."""
    app = web.Application()
    app.add_routes([web.get("/", hello), web.post("/", echo)])
    return app


async def connect(address: tuple[str, int], said: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect and say something."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(said)
    return reader, writer


async def heard(reader: asyncio.StreamReader) -> bytes:
    """Return all that the server says until it closes, within a few seconds."""
    pieces = []
    async with asyncio.timeout(60):
        with suppress(ConnectionResetError):
            while piece := await reader.read(65536):
                pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    """A server with little patience."""
    async with serve(application(), "127.0.0.1", 0, limits=IMPATIENT) as address:
        yield address


async def test_half_a_head_is_answered_and_cut(address: tuple[str, int]) -> None:
    """A head that does not arrive in time is 408, also when it comes byte by byte."""
    reader, writer = await connect(address, HEAD)
    dripping_reader, dripping = await connect(address, HEAD + b"X-A: ")

    async def drip() -> None:
        while not dripping_reader.at_eof():
            dripping.write(b"a")
            await asyncio.sleep(0)

    dripped = asyncio.create_task(drip())
    answers = await asyncio.gather(heard(reader), heard(dripping_reader))
    await dripped
    writer.close()
    dripping.close()
    # A head that never ended says no version: the parser answers it as HTTP/1.0.
    assert [answer.split(b" ")[1] in {b"408", b"431"} for answer in answers] == [True, True]
    assert [b"application/problem+json" in answer for answer in answers] == [True, True]


async def test_a_connection_on_which_nothing_is_said_is_closed(address: tuple[str, int]) -> None:
    """Without a byte there is no request that could be answered."""
    reader, writer = await connect(address)
    assert await heard(reader) == b""
    writer.close()


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="aiohttp starts an eager task for each request")
async def test_requests_one_after_the_other_share_the_task_of_their_connection() -> None:
    """A task for each would cost a twentieth of a request."""
    tasks = []

    async def note(_request: web.Request) -> web.Response:
        tasks.append(asyncio.current_task())
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/", note)])
    async with serve(app, "127.0.0.1", 0) as address:
        reader, writer = await connect(address, HEAD + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
    first, second = tasks
    assert first is second


async def test_many_requests_at_once_let_others_in() -> None:
    """A client that sends hundreds of requests in one piece does not hold up the rest of the process."""
    answered = 0
    seen = []

    async def count(_request: web.Request) -> web.Response:
        nonlocal answered
        answered += 1
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/", count)])
    async with serve(app, "127.0.0.1", 0) as address:
        reader, writer = await connect(address, (HEAD + b"\r\n") * 499 + HEAD + b"Connection: close\r\n\r\n")
        hearing = asyncio.create_task(heard(reader))
        while not hearing.done():
            await asyncio.sleep(0)
            seen.append(answered)
        writer.close()
    assert answered == 500
    assert max(later - sooner for sooner, later in pairwise(seen)) < 50


async def test_a_later_request_has_its_time_too(address: tuple[str, int]) -> None:
    """After an answer, half a head is cut as well, and a connection on which no more is said is closed."""
    reader, writer = await connect(address, HEAD + b"\r\n" + HEAD)
    assert (await heard(reader)).startswith(b"HTTP/1.1 200 ")
    idle_reader, idle = await connect(address, HEAD + b"\r\n")
    assert (await heard(idle_reader)).startswith(b"HTTP/1.1 200 ")
    writer.close()
    idle.close()


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_is_408(pool: asyncpg.Pool, framing: bytes) -> None:
    """What has been sent of it does not count; who did not wait for it has answered already."""
    head = b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n"
    async with running_api(pool, limits=IMPATIENT) as api:
        host, _, port = api.url.removeprefix("http://").partition(":")
        reader, writer = await connect((host, int(port)), head)
        answer = await heard(reader)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"X-Request-ID: " in answer
        assert b"0.3 s" in answer
        elsewhere, other = await connect((host, int(port)), head.replace(b"/users", b"/nowhere"))
        assert (await heard(elsewhere)).startswith(b"HTTP/1.1 404 ")
        assert api.metric("api_requests_total", method="POST", path="/users", status="408") == 1
    writer.close()
    other.close()


async def test_answers_that_are_not_read_are_given_up(address: tuple[str, int]) -> None:
    """A client that asks and asks and never reads is cut, with all that waits for it."""
    loop = asyncio.get_running_loop()
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(0)
        await loop.sock_connect(client, address)

        async def ask_and_ask() -> None:
            while True:
                await loop.sock_sendall(client, (HEAD + b"\r\n") * 100)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await asyncio.wait_for(ask_and_ask(), 60)


async def test_who_is_silent_makes_room_for_who_is_not() -> None:
    """Beyond the limit for one client, its most silent connection is closed; what is being answered stays."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        arrived.set()
        await release.wait()
        return web.Response(text="done")

    app = application()
    app.router.add_get("/slow", slow)
    async with serve(app, "127.0.0.1", 0, limits=Limits(connections_per_client=3)) as address:
        busy_reader, busy = await connect(
            address, b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        await arrived.wait()
        first_reader, first = await connect(address, HEAD)
        second_reader, second = await connect(address, HEAD)
        third_reader, third = await connect(address, HEAD + b"Connection: close\r\n\r\n")
        assert (await heard(third_reader)).startswith(b"HTTP/1.1 200 ")
        assert await heard(first_reader) == b""
        release.set()
        assert (await heard(busy_reader)).endswith(b"done")
        second.write(b"Connection: close\r\n\r\n")
        assert (await heard(second_reader)).startswith(b"HTTP/1.1 200 ")
    for writer in (busy, first, second, third):
        writer.close()


@pytest.mark.parametrize("limits", [Limits(connections_per_client=2), Limits(connections=2)])
async def test_when_all_are_being_answered_nobody_else_is(limits: Limits) -> None:
    """Then a new client is 503 at once, as long as that lasts."""
    arrived: asyncio.Queue[None] = asyncio.Queue()
    release = asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        arrived.put_nowait(None)
        await release.wait()
        return web.Response(text="done")

    app = web.Application()
    app.router.add_get("/", slow)
    async with serve(app, "127.0.0.1", 0, limits=limits) as address:
        clients = [await connect(address, HEAD + b"Connection: close\r\n\r\n") for _ in range(2)]
        for _ in clients:
            await arrived.get()
        refused_reader, refused = await connect(address)
        answer = await heard(refused_reader)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"application/problem+json" in answer
        release.set()
        for reader, _ in clients:
            assert (await heard(reader)).endswith(b"done")
        again_reader, again = await connect(address, HEAD + b"Connection: close\r\n\r\n")
        assert (await heard(again_reader)).endswith(b"done")
    for _, writer in [*clients, (refused_reader, refused), (again_reader, again)]:
        writer.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process enough open files for both ends of many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * SILENT), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    "said",
    [
        b"",
        HEAD,
        b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    ],
)
async def test_thousands_of_silent_clients_hold_nobody_up(pool: asyncpg.Pool, said: bytes) -> None:
    """With 2,000 connections on which nothing, half a head or half a body was said, /ready answers within 100 ms."""
    async with running_api(pool) as api, AsyncExitStack() as stack:
        host, _, port = api.url.removeprefix("http://").partition(":")
        for _ in range(SILENT):
            client = stack.enter_context(closing(socket.create_connection((host, int(port)))))
            client.sendall(said)
            # The server shares this event loop.
            await asyncio.sleep(0)
        assert (await best_of(api, 5)) < 0.1
        await api.create()


async def best_of(api: Api, times: int) -> float:
    """Return how many seconds ``/ready`` takes on a new connection, at best: the machine may be busy otherwise."""
    seconds = []
    for _ in range(times):
        began = perf_counter()
        answer = await api.get("/ready", headers={"Connection": "close"})
        seconds.append(perf_counter() - began)
        assert answer.status == 200
    return min(seconds)
