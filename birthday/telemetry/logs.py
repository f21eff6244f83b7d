"""Logs: one JSON object a line, or a readable form on a terminal.

Fields: ``timestamp`` (UTC), ``level`` (lower case) and ``severity`` (the same in upper case), ``event`` (dotted),
``role`` (the roles of the process, or command), then the fields of the event. A log never has an e-mail address, a
name, a date of birth or a secret: it identifies people by id only. Lines of libraries have the same form and a field
``logger``.
"""

import asyncio
import atexit
import json
import logging
import os
import re
import sys
import time
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from select import PIPE_BUF
from types import SimpleNamespace, TracebackType
from typing import Any, Final

import orjson
import structlog

from birthday.errors import BirthdayError, UnavailableError
from birthday.telemetry.errors import error_text, error_traceback

_Event = MutableMapping[str, Any]

_STDERR: Final = 2
_RENDER_EXCEPTION: Final = structlog.processors.ExceptionRenderer(lambda exc_info: error_traceback(exc_info[1]))
_TRIES_TO_CONNECT: Final = "error when creating transport"
_QUOTED: Final = re.compile(r"[\n(].*", re.DOTALL)


class LogFile:
    """The destination of log lines: standard error, or a file that can be reopened after its rotation.

    Only whole lines are appended, so lines of several processes do not mix.
    """

    def __init__(self, path: Path | None) -> None:
        """Open ``path`` for appending; None is standard error.

        Raises:
            OSError: if the file cannot be opened.
        """
        self._path = path
        self._descriptor = _STDERR if path is None else _open(path)
        self._gathered: list[bytes] = []
        self._fault: OSError | None = None

    def reopen(self) -> None:
        """Go on in a new file of the same name, as logrotate asks with SIGUSR1.

        If it cannot be opened, the old one is kept. The descriptor is exchanged in one step: no line is lost, even if
        another thread writes.
        """
        self.flush()
        if self._path is None:
            return
        try:
            fresh = _open(self._path)
        except OSError as error:
            structlog.get_logger().error("log.reopen_failed", path=str(self._path), error=error)
            return
        os.dup2(fresh, self._descriptor, inheritable=False)
        os.close(fresh)
        structlog.get_logger().info("log.reopened", path=str(self._path))

    def isatty(self) -> bool:
        """Say whether the log goes to a terminal."""
        return os.isatty(self._descriptor)

    def write(self, text: str) -> int:
        """Write ``text`` at once. If the file cannot be written, because its disk is full, use standard error."""
        self.write_line(text.encode(errors="backslashreplace"))
        return len(text)

    def write_line(self, data: bytes) -> None:
        """Write a line, which has its line end already, at once; see ``write``."""
        self._gathered.append(data)
        self.flush()

    def gather_line(self, data: bytes) -> None:
        """Write a line together with the others of this turn of the event loop, because each write is expensive.

        Without a loop it is written at once. Call ``flush`` before the process ends.
        """
        self._gathered.append(data)
        if len(self._gathered) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Write the gathered lines, in pieces of whole lines that a pipe takes in one write."""
        gathered, self._gathered = self._gathered, []
        piece = b""
        for line in gathered:
            if piece and len(piece) + len(line) > PIPE_BUF:
                self._write(piece)
                piece = b""
            piece += line
        self._write(piece)

    def _write(self, data: bytes) -> None:
        if data and not self._append(data):
            # If standard error fails as well, the line is lost: a failing log must not stop the program.
            with suppress(OSError):
                _write_all(_STDERR, data)

    def _append(self, data: bytes) -> bool:
        """Write to the file and say whether it took that. Whether it does is logged when it changes."""
        before = self._fault
        try:
            # A disk that was full may have taken the beginning of a line.
            _write_all(self._descriptor, data if before is None else b"\n" + data)
        except OSError as error:
            self._fault = error
            if before is None:
                structlog.get_logger().error("log.write_failed", path=str(self._path), error=error)
            return False
        self._fault = None
        if before is not None:
            structlog.get_logger().warning("log.written_again", path=str(self._path))
        return True

    async def check(self) -> None:
        """Make sure that the log can be written; if the last line could not, try again.

        Raises:
            UnavailableError: if it cannot; the text says why.
        """
        if self._fault is not None and not self._append(b""):
            where = f"the file '{self._path}'" if self._path else "standard error"
            reason = self._fault.strerror or type(self._fault).__name__
            raise UnavailableError("log", f"{where} cannot be written: {reason}; lines go to standard error instead")


def configure_logs(level: str, form: str | None, file: LogFile, role: str | None = None) -> None:
    """Set the process's log level, form, destination and role.

    ``form`` is json or console; None is console on a terminal, otherwise json. An uncaught exception is logged as
    ``program.crashed`` before the process ends.
    """
    readable = form == "console" or (form is None and file.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]

    timestamps = _Timestamps()

    def render_line(logger: object, method: str, event: _Event) -> bytes:
        head = _head(timestamps.now(), method, event.pop("event"), role)
        # The head comes first, and no field of an event takes its place.
        line = {**head, **event, **head}
        structlog.contextvars.merge_contextvars(logger, method, line)
        if "exc_info" in line:
            _RENDER_EXCEPTION(logger, method, line)
        return _render_json(line) + b"\n"

    def render_json(logger: object, method: str, event: _Event) -> str:
        # The handler of the standard library adds the line end.
        return render_line(logger, method, event).decode().removesuffix("\n")

    # Warnings and errors are written at once, because the process may end right after them.
    now, later = file.write_line, file.gather_line
    lines = SimpleNamespace(debug=later, info=later, warning=now, error=now, critical=now)
    common: list[Any] = [structlog.contextvars.merge_contextvars, partial(_complete, timestamps)] if readable else []
    console = structlog.dev.ConsoleRenderer(colors=file.isatty(), exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        # A line is made in one step, as bytes, because it is a large part of the cost of a request.
        processors=[*common, console] if readable else [render_line],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file) if readable else lambda *_: lines,  # type: ignore[arg-type] # needs write and flush only
        cache_logger_on_first_use=True,
    )
    atexit.register(file.flush)
    render: list[Any] = [console] if readable else [render_json]
    # Libraries log through the standard library: only warnings and errors, in the same form.
    handler = logging.StreamHandler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _drop_what_is_quoted, *common],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _tell_uncaught
    # aiohttp logs each malformed request with a traceback, so anybody who reaches the port could fill the log.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # aiormq logs every try to connect; broker.unreachable and broker.connected say it once for each outage.
    logging.getLogger("aiormq.connection").addFilter(lambda record: not str(record.msg).startswith(_TRIES_TO_CONNECT))


def tell_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nothing handled in the event loop: one line for a broken connection, otherwise a traceback."""
    error, what = context.get("exception"), _QUOTED.sub("", context.get("message", ""))
    broken = isinstance(error, OSError | BirthdayError) or type(error).__module__.startswith(("aiormq", "asyncpg"))
    log = structlog.get_logger()
    if broken or error is None:
        log.warning("event_loop.unhandled", what=what, error=error)
    else:
        log.error("event_loop.unhandled", what=what, exc_info=error)


def _tell_uncaught(_type: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Log the exception that ends the process. Python itself would print its whole text, such as a refused row."""
    structlog.get_logger().critical("program.crashed", exc_info=error)


class _Timestamps:
    """Formats the current instant. The text of the current second is kept, because formatting is slow."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def now(self) -> str:
        """Return the current instant in UTC, to the microsecond."""
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second, self._text = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{nanoseconds // 1000:06}Z"


def _complete(timestamps: _Timestamps, logger: Any, method: str, event: _Event) -> _Event:  # noqa: ANN401 - whatever it is
    """Add timestamp and level for the console, and reduce exceptions to the text that a log may have."""
    event["timestamp"] = timestamps.now()
    event["level"] = method
    if "exc_info" in event:
        _RENDER_EXCEPTION(logger, method, event)
    for name, value in event.items():
        if isinstance(value, BaseException):
            event[name] = error_text(value)
    return event


def _drop_what_is_quoted(_logger: object, _method: str, event: _Event) -> _Event:
    """Cut asyncio's messages after the first part: it appends tasks and callbacks with the repr of their arguments."""
    if event["logger"] == "asyncio":
        event["event"] = _QUOTED.sub("", event["event"])
    return event


def _head(timestamp: str, level: str, event: str, role: str | None) -> dict[str, Any]:
    """Return the fields that a line begins with."""
    head = {"timestamp": timestamp, "level": level, "severity": level.upper(), "event": event}
    if role:
        head["role"] = role
    return head


def _render_json(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, default=_text)
    except orjson.JSONEncodeError:
        # orjson refuses a number beyond 64 bits, and half a surrogate pair.
        return json.dumps(line, default=_text).encode(errors="backslashreplace")


def _text(value: object) -> str:
    """Return what JSON does not know as text, and of an exception the text that a log may have."""
    return error_text(value) if isinstance(value, BaseException) else str(value)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
