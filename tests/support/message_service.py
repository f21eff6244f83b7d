"""A message service to test against: a real HTTP server that records every request and answers as it is told.

By hand: ``python -m tests.support.message_service --port 8080 --fail 0.1 --delay 50ms --log requests.ndjson``
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path
from random import Random
from ssl import SSLContext
from typing import Self, TextIO

import pytest
from aiohttp import web

from birthday.config import parse_duration

TLS_GOODBYE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in.

    ``at`` is Unix time, ``monotonic`` is for differences; ``client_port`` tells one connection from another.
    """

    at: float
    monotonic: float
    method: str
    path: str
    client_port: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str | None:
        """The Idempotency-Key."""
        return self.headers.get("Idempotency-Key")

    @property
    def json(self) -> dict[str, str]:
        """The body, parsed."""
        parsed: dict[str, str] = json.loads(self.body)
        return parsed


class Fault(Enum):
    """How an answer fails to arrive: connection closed before it, silence, body cut short, body that never ends."""

    CLOSE = "close"
    HANG = "hang"
    CUT = "cut"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service does with one request, after ``delay``; with ``pause``, the body comes in two parts."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"status":"accepted"}'
    reason: str | None = None
    delay: timedelta = timedelta()
    pause: timedelta = timedelta()
    fault: Fault | None = None


Behaviour = Callable[[Received], Answer]


def accept(_received: Received) -> Answer:
    """Accept every message."""
    return Answer()


class MessageService:
    """The server, on a port of the loopback interface. After ``stop`` it can be started again on the same port.

    ``answers`` are used up first, one for each request; then ``behaviour`` decides.
    """

    def __init__(
        self,
        behaviour: Behaviour = accept,
        port: int = 0,
        log: TextIO | None = None,
        host: str = "127.0.0.1",
        tls: SSLContext | None = None,
    ) -> None:
        """Listen on ``port`` once started, 0 for a free one; write each request to ``log`` as a line of JSON.

        With ``tls`` the service speaks HTTPS.
        """
        self.requests: list[Received] = []
        self.answers: deque[Answer] = deque()
        self.behaviour = behaviour
        self._host = host
        self._port = port
        self._tls = tls
        self._log = log
        self._arrived = asyncio.Condition()
        self._stopping = asyncio.Event()
        self._runner: web.ServerRunner | None = None
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The base URL, with no slash at its end."""
        return f"{'http' if self._tls is None else 'https'}://{self._host}:{self._port}"

    async def start(self) -> Self:
        """Start to listen."""
        self._stopping.clear()
        server = web.Server(self._respond)
        self._runner = web.ServerRunner(server, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        self._listener = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            backlog=128,
            reuse_port=False,
            ssl=self._tls,
            ssl_shutdown_timeout=TLS_GOODBYE_SECONDS if self._tls else None,
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Close the port and every connection; requests under way get no answer."""
        self._stopping.set()
        if self._listener:
            # Asked before it is closed, uvloop waits for its connections as well: those with TLS take their time.
            closed = asyncio.create_task(self._listener.wait_closed())
            await asyncio.sleep(0)
            self._listener.close()
            if self._runner:
                await self._runner.cleanup()
            await closed
        self._listener = self._runner = None

    async def __aenter__(self) -> Self:
        """Start."""
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def answer_with(self, *answers: Answer) -> None:
        """Give these to the next requests, in this order."""
        self.answers.extend(answers)

    def by_key(self) -> dict[str | None, list[Received]]:
        """Return the requests by their Idempotency-Key."""
        grouped: defaultdict[str | None, list[Received]] = defaultdict(list)
        for received in self.requests:
            grouped[received.key].append(received)
        return dict(grouped)

    async def wait_for(self, count: int, seconds: float = 60) -> list[Received]:
        """Return the requests once there are at least ``count``.

        Raises:
            TimeoutError: if there are fewer after ``seconds``; the text says how many.
        """
        try:
            async with asyncio.timeout(seconds), self._arrived:
                await self._arrived.wait_for(lambda: len(self.requests) >= count)
        except TimeoutError:
            raise TimeoutError(f"{len(self.requests)} of {count} requests after {seconds:g} s") from None
        return self.requests

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        received = await _receive(request)
        answer = self.answers.popleft() if self.answers else self.behaviour(received)
        await self._record(received, answer)
        await self._wait(answer.delay)
        if answer.fault is Fault.HANG:
            await self._stopping.wait()
        if answer.fault in {Fault.CLOSE, Fault.HANG}:
            _abort(request)
        if answer.pause or answer.fault in {Fault.CUT, Fault.STALL}:
            return await self._send_in_parts(request, answer)
        return web.Response(status=answer.status, reason=answer.reason, headers=answer.headers, body=answer.body)

    async def _send_in_parts(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=answer.headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        half = len(answer.body) // 2
        await response.write(answer.body[:half])
        await self._wait(answer.pause)
        if answer.fault is Fault.STALL:
            await self._stopping.wait()
        if answer.fault:
            _abort(request)
        else:
            await response.write(answer.body[half:])
        return response

    async def _record(self, received: Received, answer: Answer) -> None:
        self.requests.append(received)
        if self._log:
            self._log.write(_log_line(received, answer))
        async with self._arrived:
            self._arrived.notify_all()

    async def _wait(self, duration: timedelta) -> None:
        """Wait, but no longer than until the server stops."""
        if duration:
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait([stopping], timeout=duration.total_seconds())
            stopping.cancel()


@pytest.fixture
async def message_service() -> AsyncIterator[MessageService]:
    """A message service that accepts everything until it is told otherwise."""
    async with MessageService() as service:
        yield service


async def _receive(request: web.BaseRequest) -> Received:
    # Nothing is known of a client that is gone already.
    _, client_port = request.get_extra_info("peername") or ("", 0)
    return Received(
        at=time.time(),
        monotonic=time.monotonic(),
        method=request.method,
        path=request.path_qs,
        client_port=client_port,
        headers=request.headers.copy(),
        body=await request.read(),
    )


def _abort(request: web.BaseRequest) -> None:
    if request.transport:
        request.transport.abort()


def _log_line(received: Received, answer: Answer) -> str:
    line = {
        "at": received.at,
        "method": received.method,
        "path": received.path,
        "key": received.key,
        "headers": dict(received.headers),
        "body": received.body.decode(errors="backslashreplace"),
        "status": answer.status,
        "fault": answer.fault.value if answer.fault else None,
    }
    return json.dumps(line) + "\n"


def _unreliable(share: float, delay: timedelta, random: Random) -> Behaviour:
    """Return the behaviour that answers 503 to this share of the requests, and each after ``delay``."""

    def behave(_received: Received) -> Answer:
        return Answer(status=503 if random.random() < share else 200, delay=delay)

    return behave


def _parse_arguments(arguments: Iterable[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="message_service", description="A message service to test against.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--fail", type=float, default=0.0, help="share of requests answered with 503, from 0 to 1")
    parser.add_argument("--delay", type=parse_duration, default=timedelta(), help="time before each answer, as 50ms")
    parser.add_argument("--log", type=Path, help="file to which every request is appended as a line of JSON")
    return parser.parse_args(list(arguments))


async def _serve(options: argparse.Namespace, log: TextIO | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    random = Random()  # noqa: S311 - Which requests fail is no secret.
    async with MessageService(_unreliable(options.fail, options.delay, random), options.port, log) as service:
        sys.stdout.write(f"{service.url}\n")
        sys.stdout.flush()
        await stop.wait()
    sys.stderr.write(f"{len(service.requests)} requests, {len(service.by_key())} messages\n")


def main(arguments: Iterable[str]) -> None:
    """Serve until SIGINT or SIGTERM; the URL is the one line of standard output."""
    options = _parse_arguments(arguments)
    if options.log:
        with options.log.open("a", encoding="utf-8", buffering=1) as log:
            asyncio.run(_serve(options, log))
    else:
        asyncio.run(_serve(options, None))


if __name__ == "__main__":
    main(sys.argv[1:])
