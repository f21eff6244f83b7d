"""Thousands of clients connect and say nothing, or half of something: others are answered, and greetings go out."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.support.chaos import Crowd, Receiver, brokers, fleet
from tests.support.message_service import MessageService

SILENT = 2000
HALVES = (
    b"",
    b"GET /users HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
)


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Allow this process and those that it starts enough open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * SILENT), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@brokers("postgres")
async def test_silent_clients_hold_up_neither_probes_nor_greetings(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """With 2,000 connections on which no request is ever complete or no answer is read, /ready takes 100 ms at most."""
    receiver = Receiver()
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url) as processes,
        aiohttp.ClientSession() as session,
    ):
        program = await processes.start("api,scheduler,worker")
        address = urlsplit(program.url)
        with ExitStack() as stack:
            for number in range(SILENT):
                client = stack.enter_context(closing(socket.create_connection((address.hostname, address.port or 0))))
                client.sendall(HALVES[number % len(HALVES)])
            await crowd.gather(500)
            seconds = []
            for _ in range(20):
                began = time.perf_counter()
                async with session.get(f"{program.url}/ready", headers={"Connection": "close"}) as answer:
                    assert answer.status == 200
                seconds.append(time.perf_counter() - began)
            # The machine may be busy otherwise: the better half counts.
            assert sorted(seconds)[len(seconds) // 2] < 0.1
            await crowd.wait_until_settled(60)
        audit = await crowd.audit(receiver)
    audit.verify()
