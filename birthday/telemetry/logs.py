"""Logs: one JSON object a line, or a readable form on a terminal.

Fields: ``timestamp`` (UTC), ``level`` (lower case), ``event`` (dotted), then whatever the event tells. Never an e-mail
address, a name, a date of birth or a secret: what identifies a person here is the id.
"""

import logging
import sys
from pathlib import Path
from typing import Any, TextIO

import orjson
import structlog

_STANDARD_FIELDS = ("timestamp", "level", "event")


class LogFile:
    """Where log lines go: standard error, or a file that can be reopened after it has been rotated."""

    def __init__(self, path: Path | None) -> None:
        """Open ``path`` for appending; None is standard error.

        Raises:
            OSError: if the file cannot be opened.
        """
        self._path = path
        self._stream: TextIO = self._open()

    def _open(self) -> TextIO:
        if self._path is None:
            return sys.stderr
        return self._path.open("a", encoding="utf-8", buffering=1)

    def reopen(self) -> None:
        """Go on in a new file of the same name: what logrotate asks for with SIGUSR1."""
        if self._path is not None:
            fresh = self._open()
            self._stream.close()
            self._stream = fresh

    def isatty(self) -> bool:
        """Say whether a person reads along."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Write text as it is."""
        return self._stream.write(text)

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._stream.flush()


def configure_logs(level: str, form: str | None, file: LogFile) -> None:
    """Set the process's log level, form (json or console; None chooses by what reads along) and destination."""
    readable = form == "console" or (form is None and file.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=file.isatty())]
        if readable
        else [structlog.processors.format_exc_info, _render_json]
    )
    structlog.configure(
        processors=common + render,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(file),  # type: ignore[arg-type] # needs write and flush only
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard library: only what an operator must know, in the same form.
    handler = logging.StreamHandler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # It reports each malformed request with a traceback: noise that anybody who reaches the port can make.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def _render_json(_logger: object, _method: str, event: dict[str, Any]) -> str:
    ordered = {name: event.pop(name) for name in _STANDARD_FIELDS if name in event}
    return orjson.dumps(ordered | event, default=str).decode()
