"""Our HTTP client and aiohttp's are given the same answers, cut at random places, and take the same from them."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from birthday.channels.message_service.connection import BrokenConnectionError, Response
from birthday.channels.message_service.plain import PlainSession
from birthday.channels.message_service.route import Network, Route
from birthday.channels.message_service.session import Client, Session

REQUEST = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
PATIENCE = timedelta(seconds=20)


def answer(status: int, retry_after: bytes | None, parts: Sequence[bytes], framing: str, interims: int) -> bytes:
    """Return the octets of an answer whose body has these parts."""
    head = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 7\r\n\r\n" * interims + b"HTTP/1.1 %d Some phrase\r\n" % status
    if retry_after is not None:
        head += b"retry-AFTER:  %b\r\n" % retry_after
    if status in {204, 304}:
        return head + b"\r\n"
    body = b"".join(parts)
    if framing == "chunked":
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if framing == "too short":
        return head + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body
    return head + b"Connection: close\r\n\r\n" + body


ANSWERS = st.builds(
    answer,
    st.sampled_from([200, 201, 202, 204, 299, 301, 304, 400, 401, 422, 429, 500, 503, 599]),
    st.none() | st.sampled_from([b"0", b"120", b"Sun, 01 Mar 2026 09:01:30 GMT", b"soon", b"\xe4\xff"]),
    st.lists(st.binary(max_size=200), max_size=4),
    st.sampled_from(["chunked", "length", "too short", "close"]),
    st.integers(0, 2),
)
NONSENSE = st.sampled_from(
    [b"", b"HTTP/1.1 20", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 2O0 OK\r\n\r\n", b"<html>\r\n\r\n"]
)


async def take(client: type[Session | PlainSession], octets: bytes, sizes: list[int]) -> Response | str:
    """Return what a client makes of an answer that comes in pieces of these sizes before the connection ends."""
    talked = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        rest = octets
        for size in sizes:
            writer.write(rest[:size])
            rest = rest[size:]
            # The client is in the same loop: it reads each piece before the next one is written.
            await asyncio.sleep(0)
        writer.write(rest)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        talked.set()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        route = Route(URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), Network())
        session: Client = client(route, 1)
        try:
            return await session.ask(REQUEST, PATIENCE)
        except BrokenConnectionError:
            return "broken"
        finally:
            await session.close()
            await talked.wait()


@settings(max_examples=60, deadline=None)
@given(ANSWERS | NONSENSE, st.lists(st.integers(1, 60), max_size=20))
def test_both_clients_take_the_same_from_an_answer(octets: bytes, sizes: list[int]) -> None:
    """Status and Retry-After, or that there is none: however the body is framed, and if it breaks off."""
    ours = asyncio.run(take(Session, octets, sizes))

    assert ours == asyncio.run(take(PlainSession, octets, sizes))
