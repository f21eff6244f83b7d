"""One connection: aiohttp's, with time limits and with error answers of our own.

If its parser refuses a request, or if an error occurs outside of all middlewares, aiohttp would send its own answer. It
has no time limits for slow clients. ``docs/decisions.md`` lists the undocumented parts of aiohttp that are used here.
"""

import asyncio
import sys
from asyncio import Transport
from collections.abc import Awaitable, Coroutine
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import EMPTY_PAYLOAD, HttpVersion10, HttpVersion11, StreamReader, hdrs, web
from aiohttp.http_exceptions import (
    BadHttpMessage,
    BadHttpMethod,
    BadStatusLine,
    InvalidHeader,
    InvalidURLError,
    LineTooLong,
)

from birthday.http.context import Report, new_request_id
from birthday.http.kinds import kind_of
from birthday.http.limits import Connections, Limits
from birthday.http.middleware.form import fault_of
from birthday.http.middleware.problems import problem

log = structlog.get_logger()


class ClientConnection(web.RequestHandler):
    """Serves one client. It is created by the listener and lives until ``connection_lost``."""

    def __init__(self, server: web.Server, connections: Connections, report: Report) -> None:
        """Start before the connection is made; ``connections`` has the limits."""
        limits = connections.limits
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type] # this is how aiohttp turns it off
            auto_decompress=False,
            keepalive_timeout=limits.idle,
            lingering_time=limits.lingering,
            max_line_size=limits.line_bytes,
            max_field_size=limits.field_bytes,
            max_headers=limits.fields,
        )
        self.address = ""
        self.fault: web.HTTPException | None = None
        self._connections = connections
        self._report = report
        self._link: Transport | None = None
        self._now = loop.time
        self._answered = 0
        self._head_since: float | None = loop.time()
        self._head_bytes = 0
        self._body: StreamReader = EMPTY_PAYLOAD
        self._body_since = 0.0
        self._reads_body = False
        self._is_long = False
        self._unread_since: float | None = None
        self._leaving_since: float | None = None
        self.is_last = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it if there are too many."""
        super().connection_made(transport)
        if sys.version_info < (3, 12):
            self._loop = cast("asyncio.AbstractEventLoop", _InOneTask(self, self._loop))
        self._link = cast("Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        if not self._connections.enter(self):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again later")
            self.cut()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._connections.leave(self)
        self._link = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what the client sends, and note what we wait for next."""
        if self._leaving_since is not None:
            return
        parsed = self._request_count
        between = parsed == self._answered and self._body.is_eof()
        super().data_received(data)
        self._connections.heard(self)
        if self._is_long:
            # A client that is busy sending may leave its answer unread.
            self._body_since, self._unread_since = self._now(), None
        if self._request_count > parsed:
            self._head_since, self._head_bytes = None, 0
            if not self._body.is_eof():
                # The parser gives up on a malformed body without telling the code that waits for it.
                self._end_body(web.RequestPayloadError("it is malformed"))
        elif between and self.transport is not None and data.strip(b"\r\n"):
            self._take_part_of_head(len(data))

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - as aiohttp has it
        """Go on if reading was paused. aiohttp calls this for each body that is read, and would call the parser."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool | None:  # type: ignore[override] # aiohttp's has no return value
        """Answer complete requests: a client that has closed its sending side may still read."""
        if self._leaving_since is not None:
            return None
        if not self._body.is_eof():
            self._end_body(ConnectionError("the connection was closed before its end"))
        if self._request_count > self._answered:
            self.is_last = True
            return True
        if self._head_bytes:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request ends within its head")
        return None

    def begin(self, message: Any, body: StreamReader) -> Any:  # noqa: ANN401 - the type is private
        """Note body and fault of a request before it is answered, and return its head as aiohttp should see it."""
        self._body = body
        self._reads_body = True
        self._is_long = False
        if not body.is_eof():
            self._body_since = self._now()
        self.fault = fault_of(message)
        if self.fault is None:
            return message
        # aiohttp would answer in an HTTP version that we do not support, and refuse an Expect before our code runs.
        headers = message.headers.copy()
        headers.popall(hdrs.EXPECT, None)
        version = HttpVersion10 if message.version == HttpVersion10 else HttpVersion11
        return message._replace(version=version, headers=headers)

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, time: float | None) -> None:  # noqa: ARG002
        """Note that an answer has been written: aiohttp calls this after each one."""
        self._answered += 1
        self._reads_body = False
        if self._is_refused:
            self._linger()
        elif self.is_last:
            self.close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """Return the answer to a request that the parser refuses, or that failed outside of our middlewares."""
        if status != HTTPStatus.BAD_REQUEST:
            answer = self._refusal(status, "an unexpected error; the log has it under the X-Request-ID")
            log.error("http.failed", exc_info=exc, request_id=answer.headers.get("X-Request-ID"))
            if request.writer.output_size > 0:
                raise ConnectionError("part of the answer has been sent")
            return answer
        refused, reason = _explain(exc, self._connections.limits)
        return self._refusal(refused, reason)

    def expect_long_body(self) -> None:
        """Limit the time between two pieces of the body of the request, not the time of all of it."""
        self._is_long = True

    def note_progress(self) -> None:
        """Note that the client has taken a piece of the answer, so that a long answer may take long to read."""
        self._unread_since = None

    @property
    def keeps_us_waiting(self) -> bool:
        """Say whether the next step is the client's, so that closing would lose no work of ours."""
        if self._leaving_since is not None or self._request_count == self._answered or not self._body.is_eof():
            return True
        return self._link is not None and self._link.get_write_buffer_size() > 0

    def check(self, now: float) -> None:
        """Close the connection if the client is too slow."""
        limits = self._connections.limits
        link = self._link
        if link is None:
            return
        if link.get_write_buffer_size() == 0:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        if self._unread_since is not None and now - self._unread_since > limits.unread:
            log.info("http.connection_cut", client=self.address, reason="it does not read its answers")
            link.abort()
        elif self._leaving_since is not None:
            if now - self._leaving_since > limits.lingering:
                link.abort()
        elif self._head_since is not None and now - self._head_since > limits.head:
            if self._head_bytes:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head did not arrive within {limits.head:g} s")
            else:
                self.cut()
        elif not self._body.is_eof():
            self._check_body(now)

    def _check_body(self, now: float) -> None:
        if self._is_long and self._reading_paused:
            # It is our turn: what was sent is not dealt with yet.
            self._body_since = now
        elif now - self._body_since > self._connections.limits.body:
            self._end_body(TimeoutError(f"it did not arrive within {self._connections.limits.body:g} s"))

    def cut(self) -> None:
        """Close the connection at once. A client that has read everything sees a normal close."""
        if self._link is not None:
            if self._link.get_write_buffer_size():
                self._link.abort()
            else:
                self._link.close()

    def _end_body(self, error: Exception) -> None:
        """Raise ``error`` where the body is read, and accept no further request."""
        self.is_last = True
        if self._reads_body:
            self._body.set_exception(error)
        self._body.feed_eof()

    def _take_part_of_head(self, size: int) -> None:
        if self._head_since is None:
            self._head_since = self._now()
        self._head_bytes += size
        if self._head_bytes > self._connections.limits.head_bytes:
            most = self._connections.limits.head_bytes
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head is too large: at most {most} bytes are accepted"
            )

    def _refusal(self, status: int, detail: str, reason: str = "") -> web.Response:
        """Return the answer to a request that no middleware has answered; count and log it."""
        request_id = new_request_id()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            answer = problem(kind_of(status), detail)
        answer.force_close()
        self._is_refused = True
        self._report(answer, request_id, reason or detail, self.address)
        return answer

    def _refuse(self, status: int, detail: str) -> None:
        """Write an answer directly: without a complete head, aiohttp has no request to answer."""
        answer = self._refusal(status, detail)
        if self._link is not None and not self._link.is_closing():
            self._link.write(_raw(answer))
            self._linger()
            self.close()

    def _linger(self) -> None:
        """Close our sending side and let the client finish: a reset could destroy the answer before it is read."""
        self._leaving_since = self._now()
        # Without a transport, aiohttp leaves the closing to us.
        self.transport = None
        if self._link is not None and not self._link.is_closing():
            self._link.write_eof()


class _InOneTask:
    """The event loop as aiohttp's ``start`` sees it, which awaits each request in a task of its own.

    Here it is awaited in the task of the connection: a task takes a twentieth of a request. With Python 3.12 or later,
    aiohttp starts tasks eagerly, which is as cheap. Each request sets all context variables that it needs. While more
    requests of the connection wait, it is a task as before, because only its turn of the event loop lets others in.
    """

    def __init__(self, connection: ClientConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self.create_future = loop.create_future
        self.time = loop.time

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the loop has
        return getattr(self._loop, name)

    def create_task(self, answering: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        waiting = self._connection._messages  # noqa: SLF001 - the parsed requests of the connection
        return self._loop.create_task(answering) if waiting else answering


def _explain(error: BaseException | None, limits: Limits) -> tuple[HTTPStatus, str]:
    """Return status and reason for an error of the parser, without the bytes of the request that it quotes."""
    match error:
        case LineTooLong(args=(_, limit, *_)) if limit == limits.line_bytes:
            return HTTPStatus.REQUEST_URI_TOO_LONG, f"the target is too long: at most {limit} bytes are accepted"
        case LineTooLong():
            detail = f"a header is too long: at most {limits.field_bytes} bytes are accepted"
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail
        case BadHttpMessage(message="Too many headers received"):
            detail = f"there are too many headers: at most {limits.fields} are accepted"
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail
        case BadHttpMethod():
            return HTTPStatus.BAD_REQUEST, "the request does not begin with a method of HTTP"
        case InvalidURLError():
            return HTTPStatus.BAD_REQUEST, "the target of the request is not a path or URL"
        case BadStatusLine():
            return HTTPStatus.BAD_REQUEST, "the request line is not one of HTTP/1.0 or HTTP/1.1"
        case InvalidHeader():
            return HTTPStatus.BAD_REQUEST, "a header is malformed"
        case _:
            # llhttp appends the bytes that it has read to its reason; aiohttp's own reasons quote nothing.
            reason = str(getattr(error, "message", "")).partition(":\n")[0].strip()
            return HTTPStatus.BAD_REQUEST, f"the request is not HTTP: {reason or type(error).__name__}"


def _raw(answer: web.Response) -> bytes:
    body = cast("bytes", answer.body)
    headers = dict(answer.headers) | {"Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
