"""Reads the source of an import, a file or standard input: first chunks of bytes, then numbered lines."""

import asyncio
import os
from collections.abc import AsyncGenerator
from io import FileIO
from stat import S_ISREG
from typing import NamedTuple

from birthday.errors import FieldError, InvalidInputError, UnavailableError

STDIN = "-"
CHUNK_BYTES = 8 * 1024
"""Small, because while a chunk is parsed, the event loop is blocked, and the database work of the import waits."""
MAX_LINE_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A physical line without its line feed. ``content`` is None for a line beyond ``MAX_LINE_BYTES``."""

    number: int
    content: bytes | None

    @property
    def is_blank(self) -> bool:
        """Say whether there is nothing but white space."""
        return self.content is not None and not self.content.strip()


class LineSplitter:
    """Cuts chunks into lines. Holds one unfinished line at most, and that only up to ``MAX_LINE_BYTES``."""

    def __init__(self) -> None:
        """Start before the first line."""
        self._rest = b""
        self._number = 0
        self._overflown = False

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the lines that ``chunk`` completes."""
        *ended, self._rest = (self._rest + chunk).split(b"\n")
        lines = self._number_lines(ended)
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self._overflown = b"", True
        return lines

    def finish(self) -> list[Line]:
        """Return the last line, if the input ends without a line feed."""
        return self._number_lines([self._rest]) if self._rest or self._overflown else []

    def _number_lines(self, ended: list[bytes]) -> list[Line]:
        lines = [
            Line(number, content if len(content) <= MAX_LINE_BYTES else None)
            for number, content in enumerate(ended, self._number + 1)
        ]
        if lines and self._overflown:
            lines[0], self._overflown = Line(lines[0].number, None), False
        if lines and self._number == 0 and lines[0].content is not None:
            lines[0] = Line(1, lines[0].content.removeprefix(_BYTE_ORDER_MARK))
        self._number += len(lines)
        return lines


def open_source(name: str) -> FileIO:
    """Open a file, or standard input for ``-``, without a buffer: a read returns what is available.

    Raises:
        InvalidInputError: if it cannot be read.
    """
    try:
        return FileIO(0, closefd=False) if name == STDIN else FileIO(name)
    except OSError as error:
        raise InvalidInputError(FieldError("", f"{name} cannot be read: {error.strerror}")) from None


def source_size(source: FileIO) -> int | None:
    """Return the size in bytes, or None for a pipe or a terminal."""
    status = os.fstat(source.fileno())
    return status.st_size if S_ISREG(status.st_mode) else None


async def read_chunks(source: FileIO) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of ``source`` in pieces; waiting for a pipe or a terminal leaves the event loop free.

    Raises:
        UnavailableError: if it cannot be read any further.
    """
    while True:
        await _until_readable(source)
        try:
            chunk = source.read(CHUNK_BYTES)
        except OSError as error:
            raise UnavailableError("file", f"{source.name} cannot be read any further: {error.strerror}") from None
        if chunk:
            yield chunk
        elif chunk is not None:
            return


async def _until_readable(source: FileIO) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(source.fileno(), readable.set)
    except PermissionError:
        # epoll refuses regular files, because they are always readable. Let other tasks run all the same.
        await asyncio.sleep(0)
        return
    try:
        await readable.wait()
    finally:
        loop.remove_reader(source.fileno())
