"""One connection to an HTTP/1.1 server, which carries one request after the other.

The status line alone decides what an answer means. It is read here, so nothing after it can change that, such as an
invalid header or a truncated body. httptools, which is strict (its llhttp is the parser of Node.js), finds the end of
the answer. That decides whether the connection can be used again.
"""

import asyncio
import re
from typing import Final, NamedTuple, cast

import httptools

from birthday.channels.message_service.writes import Writes

_BYTES_LIMIT: Final = 128 * 1024
"""The most bytes of one answer that are read. The rest is not needed, because bodies are not used."""
_STATUS_LINE: Final = re.compile(rb"[\r\n]*HTTP/\d\.\d ([1-9]\d\d)(?:[ \t\r][^\n]*)?(?=\n)")
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_SWITCHING_PROTOCOLS: Final = 101


class BrokenConnectionError(Exception):
    """The connection ended, or brought invalid HTTP, before a status came. The request may have arrived."""


class Response(NamedTuple):
    """The parts of an answer that are used."""

    status: int
    retry_after: bytes | None


def final_status(received: bytes) -> int:
    """Return the status of an answer that begins like this; 0 if its status line is incomplete or invalid.

    Answers with a status of 1xx come before the final answer (RFC 9110, section 15.2). After 101, another protocol
    follows.
    """
    at = 0
    while (line := _STATUS_LINE.match(received, at)) is not None:
        status = int(line[1])
        if status >= 200:
            return status
        head = _END_OF_HEAD.search(received, line.end())
        if head is None or status == _SWITCHING_PROTOCOLS:
            break
        at = head.end()
    return 0


class HttpConnection(asyncio.Protocol):
    """The asyncio protocol of one transport, be it direct, through a proxy, or with TLS."""

    def __init__(self, loop: asyncio.AbstractEventLoop, writes: Writes) -> None:
        self.reusable = False
        """Whether the last answer is complete, and since then no data has come and neither side has closed."""
        self.opened_at = self.idle_since = loop.time()
        self._loop = loop
        self._writes = writes
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._asking: asyncio.Future[Response] | None = None
        self._beginning = b""
        self._status = 0
        self._retry_after: bytes | None = None
        self._received_bytes = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """Stays set between requests, because a timer for each of them costs as much as parsing its answer."""

    @property
    def is_open(self) -> bool:
        """Whether there is still a transport to write to."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, deadline: float) -> Response:
        """Send ``request`` and return its answer, read to its end so that the connection can be used again.

        Once the status line has come, the answer counts. If then a header is invalid, or the body is too long,
        truncated or not there by ``deadline``, in the time of ``time.monotonic``, the connection is closed, but the
        answer still counts. Cancelling closes the connection too.

        Raises:
            TimeoutError: no status came by ``deadline``.
            BrokenConnectionError: no status will come.
        """
        self.reusable = False
        self._beginning = b""
        self._status = self._received_bytes = 0
        self._retry_after = None
        self._asking = asking = self._loop.create_future()
        if not self.is_open:
            self._give_up(BrokenConnectionError("it was closed by the other side"))
        elif self._transport is not None:
            self._writes.add(self._transport, request, deadline)
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._set_timer()
        try:
            answer: Response = await asking
        finally:
            self._asking = None
            if not self.reusable:
                self.abort()
        return answer

    def abort(self) -> None:
        """Close the connection at once, whatever is under way."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; asyncio calls this."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what came; asyncio calls this. Data that answers no request closes the connection."""
        if self._asking is None:
            self.abort()
            return
        self._received_bytes += len(data)
        if not self._status:
            self._beginning += data
            self._status = final_status(self._beginning)
        try:
            self._parser.feed_data(data)
            if self._received_bytes > _BYTES_LIMIT:
                self._give_up(BrokenConnectionError("the answer is too long, and has no status"))
        except httptools.HttpParserUpgrade:
            self._give_up(BrokenConnectionError("the answer is in another protocol"))
        except httptools.HttpParserError:
            # The error's text may quote the answer, which may repeat the e-mail address.
            self._give_up(BrokenConnectionError("the answer is no HTTP"))

    def eof_received(self) -> None:
        """Do not use the connection again; asyncio calls this, and then closes it."""
        self.reusable = False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait for an answer; asyncio calls this."""
        if self._timer is not None:
            self._timer.cancel()
        text = getattr(exc, "strerror", None) or "it was closed by the other side"
        self._give_up(BrokenConnectionError(text))
        # It holds methods of this object. Python frees such a cycle late, and keeps the memory.
        del self._parser

    def on_message_begin(self) -> None:
        """Notice an answer to no request; the parser calls this and the methods below."""
        if self._asking is None or self._asking.done():
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep Retry-After, the only header that is used."""
        if len(name) == 11 and name.lower() == b"retry-after":
            self._retry_after = value

    def on_headers_complete(self) -> None:
        """Forget the headers of a 1xx answer. Give up if the parser accepts a status line that is invalid here."""
        if 100 <= self._parser.get_status_code() < 200:
            self._retry_after = None
        elif not self._status:
            self._give_up(BrokenConnectionError("the answer is no HTTP"))

    def on_message_complete(self) -> None:
        """Return the answer to ``ask``, now that it is complete."""
        if self._parser.get_status_code() >= 200 and self._asking is not None and not self._asking.done():
            self._asking.set_result(Response(self._status, self._retry_after))
            self.reusable = self._parser.should_keep_alive()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        if self._asking is None:
            return
        if self._loop.time() < self._deadline:
            # It was set for an earlier request.
            self._set_timer()
        else:
            self._give_up(TimeoutError())

    def _give_up(self, error: Exception) -> None:
        """End the wait for the answer: with its status if that has come, otherwise with ``error``."""
        self.reusable = False
        if self._asking is None or self._asking.done():
            return
        if self._status:
            self._asking.set_result(Response(self._status, self._retry_after))
        else:
            self._asking.set_exception(error)
