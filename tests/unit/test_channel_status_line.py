"""Answers that break the rules: a final status line that was read decides, whatever follows it; nothing less does."""

import asyncio
import gc
import os
import socket
from itertools import pairwise
from typing import Final
from weakref import finalize

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from birthday.channels.message_service.connection import BrokenConnectionError, HttpConnection, Response
from birthday.channels.message_service.writes import Writes

PATIENCE_SECONDS: Final = 5.0
REQUEST: Final = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"

SERVERS: Final = {
    "nginx": b"Server: nginx/1.24.0\r\nDate: Sun, 01 Mar 2026 09:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: 21\r\nConnection: keep-alive\r\n\r\n" + b'{"status":"accepted"}',
    "apache": b"Date: Sun, 01 Mar 2026 09:00:00 GMT\r\nServer: Apache/2.4.58 (Ubuntu)\r\nVary: Accept-Encoding\r\n"
    b"Keep-Alive: timeout=5, max=100\r\nConnection: Keep-Alive\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: text/html; charset=UTF-8\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "go": b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
    b"Date: Sun, 01 Mar 2026 09:00:00 GMT\r\nContent-Length: 3\r\n\r\nok\n",
    "node": b"X-Powered-By: Express\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n"
    b'ETag: W/"2-vyGp6PvFo4RvsFtPoIWeCReyIC8"\r\nDate: Sun, 01 Mar 2026 09:00:00 GMT\r\nConnection: keep-alive\r\n'
    b"Keep-Alive: timeout=5\r\n\r\n{}",
    "gunicorn": b"Server: gunicorn\r\nDate: Sun, 01 Mar 2026 09:00:00 GMT\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "uvicorn": b"date: Sun, 01 Mar 2026 09:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 2\r\n"
    b"content-type: application/json\r\n\r\n{}",
    "iis": b"Content-Type: application/json; charset=utf-8\r\nServer: Microsoft-IIS/10.0\r\nX-Powered-By: ASP.NET\r\n"
    b"Date: Sun, 01 Mar 2026 09:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
    "cloudflare": b"Date: Sun, 01 Mar 2026 09:00:00 GMT\r\nConnection: keep-alive\r\nCF-Cache-Status: DYNAMIC\r\n"
    b"Set-Cookie: __cf_bm=x; path=/; HttpOnly\r\nServer: cloudflare\r\nCF-RAY: 8f0-FRA\r\n\r\n",
}
"""What comes after the status line in answers of common servers."""

BREACHES: Final = {
    "blank before the colon": b"X-A : b\r\n",
    "folded": b"X-A: b\r\n folded\r\n",
    "folded first": b" folded: x\r\n",
    "length twice": b"Content-Length: 2\r\nContent-Length: 2\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n",
    "negative length": b"Content-Length: -1\r\n",
    "empty length": b"Content-Length: \r\n",
    "length in words": b"Content-Length: two\r\n",
    "enormous length": b"Content-Length: 99999999999999999999999999\r\n",
    "length beside encoding": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "encoding beside length": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
    "unknown encoding": b"Transfer-Encoding: chunked, identity\r\n",
    "control character": b"X-A: a\x01b\r\n",
    "control character in the name": b"X\x00A: b\r\n",
    "byte over 0x7F in the name": b"X-\xc3\xa4: b\r\n",
    "no colon": b"no colon here\r\n",
    "no name": b": b\r\n",
    "bare line feed": b"X-A: b\nX-B: c\n",
    "bare carriage return": b"X-A: b\rX-B: c\r\n",
    "binary": bytes(range(256)),
}


def pieces(said: bytes, cuts: list[int]) -> list[bytes]:
    """Return what is said in pieces, cut at these places, of which some may be beyond the end."""
    places = sorted({0, len(said), *(cut for cut in cuts if cut < len(said))})
    return [said[start:end] for start, end in pairwise(places)]


async def ask(said: list[bytes], *, reset: bool = False) -> tuple[Response, bool]:
    """Ask a server that says this, and then closes the connection; return the answer and whether it can be used again.

    With ``reset`` it has not read the request, so that closing resets the connection.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    transport, connection = await loop.create_connection(lambda: HttpConnection(loop, Writes()), sock=ours)
    asking = asyncio.ensure_future(connection.ask(REQUEST, loop.time() + PATIENCE_SECONDS))
    try:
        # One turn to ask, and one to write the request.
        for _ in range(2):
            await asyncio.sleep(0)
        if not reset:
            await loop.sock_recv(theirs, len(REQUEST))
        for piece in said:
            try:
                await loop.sock_sendall(theirs, piece)
            except (BrokenPipeError, ConnectionResetError):
                break  # It was understood before the end.
            await asyncio.sleep(0)
        theirs.close()
        return await asking, connection.reusable
    finally:
        theirs.close()
        transport.abort()


@pytest.mark.parametrize("breach", BREACHES)
@pytest.mark.parametrize("status", [200, 204, 400, 429, 503])
async def test_a_status_line_decides_though_a_header_breaks_the_rules(status: int, breach: str) -> None:
    """The greeting is not sent again for what a server gets wrong after it has accepted it."""
    for before in (b"", b"Server: x\r\n"):
        said = b"HTTP/1.1 %d X\r\n" % status + before + BREACHES[breach] + b"\r\n{}"
        answer, _ = await ask([said])
        assert answer.status == status


async def test_a_lost_connection_is_freed_without_the_garbage_collector() -> None:
    """A worker replaces a hundred of them a minute, and the collector looks for such old objects once in hours."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    transport, connection = await loop.create_connection(lambda: HttpConnection(loop, Writes()), sock=ours)
    freed = asyncio.Event()
    finalize(connection, freed.set)
    gc.disable()
    try:
        theirs.close()
        del transport, connection
        await asyncio.wait_for(freed.wait(), PATIENCE_SECONDS)
    finally:
        gc.enable()


async def test_a_connection_whose_answer_broke_the_rules_is_not_used_again() -> None:
    """Nobody knows where such an answer ends."""
    assert await ask([b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n"]) == (Response(200, None), False)


async def test_how_long_to_wait_is_known_though_a_later_header_breaks_the_rules() -> None:
    """What could be read is obeyed."""
    said = b"HTTP/1.1 503 X\r\nRetry-After: 7\r\nServer: x\r\nX-A : b\r\n\r\n"
    assert (await ask([said]))[0] == Response(503, b"7")


@pytest.mark.parametrize("end", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200\r\n"])
async def test_a_reset_after_the_status_line_changes_nothing(end: bytes) -> None:
    """The server that said so has the greeting."""
    assert (await ask([end], reset=True))[0].status == 200


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 103 Early Hints\r\nLink: HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Early Hints\r\nX-A : b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_without_a_final_status_line_nobody_knows(said: bytes, *, reset: bool) -> None:
    """One that is cut short, or one that comes before the answer proper, tells nothing about the greeting."""
    with pytest.raises(BrokenConnectionError):
        await ask([said] if said else [], reset=reset)


@st.composite
def tails(draw: st.DrawFn) -> bytes:
    """Return what follows the status line in an answer of a server, with something wrong in it, or nothing."""
    tail = SERVERS[draw(st.sampled_from(sorted(SERVERS)))]
    at = draw(st.integers(0, len(tail)))
    match draw(st.sampled_from(["breach", "bytes", "remove", "repeat", "truncate", "nothing"])):
        case "breach":
            line = tail.rfind(b"\n", 0, tail.find(b"\r\n\r\n") * at // max(len(tail), 1)) + 1
            return tail[:line] + BREACHES[draw(st.sampled_from(sorted(BREACHES)))] + tail[line:]
        case "bytes":
            return tail[:at] + draw(st.binary(max_size=8)) + tail[at:]
        case "remove":
            return tail[:at] + tail[at + draw(st.integers(1, 20)) :]
        case "repeat":
            return tail[:at] + tail[max(0, at - draw(st.integers(1, 60))) :]
        case "truncate":
            return tail[:at]
        case _:
            return tail


INTERIM: Final = st.sampled_from(
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 X\r\nLink: </a>; rel=x\r\n\r\n"]
)
LINES: Final = st.builds(
    lambda version, status, reason, end: b"HTTP/1.%d %d%b%b" % (version, status, reason, end),
    st.sampled_from([0, 1]),
    st.integers(200, 599),
    st.sampled_from([b"", b" ", b" OK", b" Not At All", b" gr\xc3\xbc\xc3\x9f dich"]),
    st.sampled_from([b"\r\n", b"\n"]),
)
CUTS: Final = st.lists(st.integers(1, 400), max_size=6)
MANY: Final = settings(
    max_examples=1000 if os.environ.get("CHAOS") == "full" else 200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@MANY
@given(interim=INTERIM, line=LINES, tail=tails(), cuts=CUTS, reset=st.booleans())
@example(interim=b"", line=b"HTTP/1.1 200 OK\r\n", tail=b"X-A : b\r\n\r\n", cuts=[17], reset=False)
async def test_whatever_follows_a_status_line_it_decides(
    interim: bytes, line: bytes, tail: bytes, cuts: list[int], *, reset: bool
) -> None:
    """Answers of real servers with something wrong in them, in pieces, and then the end of the connection."""
    answer, _ = await ask(pieces(interim + line + tail, cuts), reset=reset)
    assert answer.status == int(line[9:12])


@MANY
@given(interim=INTERIM, line=LINES, kept=st.integers(0, 100), cuts=CUTS, reset=st.booleans())
async def test_less_than_a_status_line_decides_nothing(
    interim: bytes, line: bytes, kept: int, cuts: list[int], *, reset: bool
) -> None:
    """Wherever it is cut short."""
    with pytest.raises(BrokenConnectionError):
        await ask(pieces(interim + line[: min(kept, len(line) - 1)], cuts), reset=reset)
