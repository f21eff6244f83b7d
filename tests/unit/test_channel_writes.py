"""Requests of several connections are written together, and none waits for long."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from birthday.channels.message_service.writes import TOGETHER, Writes


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
        writes.add(pair.transport, b"request")
    assert [pair.received() for pair in pairs[:3]] == [b""] * 3
    await asyncio.sleep(0)
    assert [pair.received() for pair in pairs[:3]] == [b"request"] * 3


async def test_many_requests_do_not_wait_for_the_end_of_the_turn(pairs: list[Pair]) -> None:
    """The service works on a full set while the turn goes on; the next one begins anew."""
    writes = Writes()
    for pair in pairs:
        writes.add(pair.transport, b"request")
    assert [pair.received() for pair in pairs] == [b"request"] * TOGETHER + [b""]
    await asyncio.sleep(0)
    assert [pair.received() for pair in pairs] == [b""] * TOGETHER + [b"request"]
    writes.add(pairs[0].transport, b"another")
    await asyncio.sleep(0)
    assert pairs[0].received() == b"another"


async def test_a_connection_that_is_closed_meanwhile_holds_up_no_other(pairs: list[Pair]) -> None:
    """Whoever gave up does not want its request to be sent any more."""
    writes = Writes()
    for pair in pairs[:2]:
        writes.add(pair.transport, b"request")
    pairs[0].transport.abort()
    await asyncio.sleep(0)
    assert pairs[0].received() == b""
    assert pairs[1].received() == b"request"
