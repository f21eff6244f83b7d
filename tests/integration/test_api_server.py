"""The listener: where it listens, what it says if it cannot, and how it ends."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import timedelta

import aiohttp
import pytest
import structlog
from aiohttp import web

from birthday.errors import UnavailableError
from birthday.http.server import serve, turn_away

SO_LOCK_FILTER = 44
"""Of Linux, which the module ``socket`` lacks."""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def hello(_request: web.Request) -> web.Response:
    """Answer at once."""
    return web.Response(text="hello")


def application(answer: Answer = hello) -> web.Application:
    """Return an application with one path."""
    app = web.Application()
    app.router.add_get("/", answer)
    return app


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with a bound on its patience."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as client:
        yield client


async def test_port_0_is_a_free_port(client: aiohttp.ClientSession) -> None:
    """The address that was bound is the one that answers."""
    async with serve(application(), "127.0.0.1", 0) as (host, port):
        assert (host, port) != ("127.0.0.1", 0)
        async with client.get(f"http://{host}:{port}/") as response:
            assert await response.text() == "hello"


async def test_localhost_is_an_address(client: aiohttp.ClientSession) -> None:
    """HOST may be a name."""
    async with (
        serve(application(), "localhost", 0) as (_, port),
        client.get(f"http://localhost:{port}/") as response,
    ):
        assert response.status == 200


async def test_several_servers_share_one_port(client: aiohttp.ClientSession) -> None:
    """Processes on one host share a port; when one leaves, the other answers."""
    async with serve(application(), "127.0.0.1", 0) as (host, port):
        async with serve(application(), host, port) as again:
            assert again == (host, port)
        for _ in range(5):
            async with client.get(f"http://{host}:{port}/") as response:
                assert response.status == 200


async def test_nobody_who_connects_while_a_server_leaves_a_shared_port_is_cut_off() -> None:
    """Connections that the kernel has made and the server has not accepted yet are answered all the same."""
    left = asyncio.Event()
    answers: asyncio.Queue[int] = asyncio.Queue()

    async def keep_connecting(host: str, port: int) -> None:
        while not left.is_set():
            async with aiohttp.request("GET", f"http://{host}:{port}/") as response:
                answers.put_nowait(response.status)

    async with serve(application(), "127.0.0.1", 0) as (host, port), asyncio.TaskGroup() as clients:
        for _ in range(50):
            clients.create_task(keep_connecting(host, port))
        for _ in range(3):
            async with serve(application(), host, port):
                assert {await answers.get() for _ in range(500)} == {200}
        left.set()


async def test_a_kernel_that_refuses_the_filter_does_not_disturb_the_end() -> None:
    """It only makes a stop smoother. A locked socket refuses it with EPERM, as some kernels do to all but root."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, structlog.testing.capture_logs() as events:
        listener.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
        turn_away(listener)
    assert [(event["event"], event["reason"]) for event in events] == [
        ("listener.filter_refused", "Operation not permitted")
    ]


async def test_a_port_that_is_taken_is_named() -> None:
    """The error says which setting to change."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"HOST=127.0.0.1 PORT={port}.*set PORT to a free port") as raised:
            async with serve(application(), "127.0.0.1", port):
                pytest.fail("it must not listen")
    assert raised.value.resource == "listener"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_a_host_that_is_not_here_is_named(host: str) -> None:
    """An address of another machine, or a name that is none, is refused with advice."""
    with pytest.raises(UnavailableError, match=f"HOST={host} .*set HOST to an address of this machine"):
        async with serve(application(), host, 0):
            pytest.fail("it must not listen")


async def test_what_is_being_answered_is_answered_before_the_end(client: aiohttp.ClientSession) -> None:
    """On leaving, a request under way gets its answer, and a new connection is refused meanwhile."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        arrived.set()
        await release.wait()
        return web.Response(text="done")

    async with asyncio.TaskGroup() as group:
        leave = asyncio.Event()
        address: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            async with serve(application(slow), "127.0.0.1", 0) as bound:
                address.set_result(bound)
                await leave.wait()

        server = group.create_task(run())
        host, port = await address
        url = f"http://{host}:{port}/"

        async def ask() -> str:
            async with client.get(url) as response:
                return await response.text()

        answer = group.create_task(ask())
        await arrived.wait()
        leave.set()
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except ConnectionRefusedError:
                    break
                writer.close()
            assert not server.done()
            release.set()
            assert await answer == "done"
            await server


async def test_leaving_takes_no_longer_than_the_grace(client: aiohttp.ClientSession) -> None:
    """A request that never ends is cut off."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()

    async def endless(_request: web.Request) -> web.Response:
        arrived.set()
        await asyncio.Event().wait()
        return web.Response()

    async with serve(application(endless), "127.0.0.1", 0, grace=timedelta(seconds=0.2)) as (host, port):
        request = asyncio.ensure_future(client.get(f"http://{host}:{port}/"))
        await arrived.wait()
        started = loop.time()
    assert loop.time() - started < 4
    with pytest.raises(aiohttp.ClientError):
        await request


async def test_idle_connections_do_not_delay_the_end(client: aiohttp.ClientSession) -> None:
    """A connection that is only kept open is closed at once."""
    loop = asyncio.get_running_loop()
    async with serve(application(), "127.0.0.1", 0, grace=timedelta(seconds=8)) as (host, port):
        async with client.get(f"http://{host}:{port}/") as response:
            await response.read()
        started = loop.time()
    assert loop.time() - started < 4
