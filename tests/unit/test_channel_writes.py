"""Requests of several connections are written together, and none waits for long."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import pytest

from birthday.channels.message_service.writes import TOGETHER, Writes

LATER: Final = time.monotonic() + 3600


class Pair(NamedTuple):
    """A transport, and the socket of who reads what is written to it."""

    transport: asyncio.Transport
    reader: socket.socket

    def received(self) -> bytes:
        """Return what has come so far."""
        try:
            return self.reader.recv(1000)
        except BlockingIOError:
            return b""


@pytest.fixture
async def pairs() -> AsyncIterator[list[Pair]]:
    """Open as many connections as are written to together, and one more."""
    opened = []
    for _ in range(TOGETHER + 1):
        ours, theirs = socket.socketpair()
        theirs.settimeout(0)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        opened.append(Pair(transport, theirs))
    yield opened
    for pair in opened:
        pair.transport.abort()
        pair.reader.close()


async def test_a_few_requests_are_written_in_the_next_turn_of_the_loop(pairs: list[Pair]) -> None:
    """They wait for what else the turn brings, but not for a full set."""
    writes = Writes()
    for pair in pairs[:3]:
        writes.add(pair.transport, b"request", LATER)
    assert [pair.received() for pair in pairs[:3]] == [b""] * 3
    await asyncio.sleep(0)
    assert [pair.received() for pair in pairs[:3]] == [b"request"] * 3


async def test_many_requests_do_not_wait_for_the_end_of_the_turn(pairs: list[Pair]) -> None:
    """The service works on a full set while the turn goes on; the next one begins anew."""
    writes = Writes()
    for pair in pairs:
        writes.add(pair.transport, b"request", LATER)
    assert [pair.received() for pair in pairs] == [b"request"] * TOGETHER + [b""]
    await asyncio.sleep(0)
    assert [pair.received() for pair in pairs] == [b""] * TOGETHER + [b"request"]
    writes.add(pairs[0].transport, b"another", LATER)
    await asyncio.sleep(0)
    assert pairs[0].received() == b"another"


async def test_what_is_late_is_not_written(pairs: list[Pair]) -> None:
    """A process that was stopped meanwhile may have lost its messages to another worker."""
    writes = Writes()
    writes.add(pairs[0].transport, b"request", time.monotonic())
    writes.add(pairs[1].transport, b"request", LATER)
    await asyncio.sleep(0)
    assert pairs[0].received() == b""
    assert pairs[1].received() == b"request"


async def test_a_connection_that_is_closing_holds_up_no_other(pairs: list[Pair]) -> None:
    """It still has something to write when it is closed, and gets nothing more."""
    writes = Writes()
    filling = bytes(2**22)
    pairs[0].transport.write(filling)
    for pair in pairs[:2]:
        writes.add(pair.transport, b"request", LATER)
    pairs[0].transport.close()
    await asyncio.sleep(0)
    assert pairs[1].received() == b"request"
    received = 0
    loop = asyncio.get_running_loop()
    while piece := await loop.sock_recv(pairs[0].reader, 2**20):
        received += len(piece)
    assert received == len(filling)
