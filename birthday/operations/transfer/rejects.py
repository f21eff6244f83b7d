"""The rows that an import rejected, as files: to be mended and imported again, and what is wrong with each."""

import asyncio
import csv
import io
from collections import deque
from collections.abc import Iterator
from io import FileIO
from itertools import dropwhile
from typing import Final

from birthday.operations.transfer.cells import CsvCells
from birthday.operations.transfer.records import Rejected
from birthday.operations.transfer.source import CHUNK_BYTES, Line, LineSplitter

MAX_BYTES: Final = 1024 * 1024
"""How long the files become; further rows are left out."""


class Rejects:
    """Takes rejected rows one by one: counts all, and keeps as many as fit."""

    def __init__(self) -> None:
        """Start without any."""
        self.count = 0
        self.kept: list[Rejected] = []
        self._errors = io.StringIO(newline="")
        self._write = csv.writer(self._errors, lineterminator="\n").writerow
        self._write(("line", "field", "problem"))

    @property
    def are_complete(self) -> bool:
        """Whether all are kept."""
        return self.count == len(self.kept)

    def add(self, rejected: Rejected) -> None:
        """Take a row."""
        self.count += 1
        if self.count > len(self.kept) + 1 or self._errors.tell() > MAX_BYTES:
            return
        self.kept.append(rejected)
        for error in rejected.errors:
            self._write((rejected.line, error.name, error.detail))

    def errors(self) -> bytes:
        """Return what is wrong, as CSV."""
        return self._errors.getvalue().encode()

    async def rows(self, source: FileIO) -> bytes:
        """Return the rows as they are in the file, with the header of a CSV file. Reads the file from its start."""
        source.seek(0)
        wanted = {one.line for one in self.kept}
        found, lines, records = io.BytesIO(), LineSplitter(), _Records()
        is_last, last = not wanted, max(wanted, default=0)
        while not is_last:
            chunk = source.read(CHUNK_BYTES)
            is_last = not chunk
            for number, text in records.read(lines.finish() if is_last else lines.feed(chunk), last=is_last):
                if number in wanted or (number == records.header and wanted):
                    found.write(text)
                is_last = is_last or number > last or found.tell() > MAX_BYTES
            # A long file must not hold up others.
            await asyncio.sleep(0)
        return found.getvalue()


class _Records:
    """Cuts lines into records as they stand in the file: each with all lines up to the next record."""

    def __init__(self) -> None:
        self.header: int | None = None
        self._has_begun = False
        self._cells: CsvCells | None = None
        self._start: int | None = None
        self._waiting: deque[Line] = deque()

    def read(self, lines: list[Line], *, last: bool) -> Iterator[tuple[int, bytes]]:
        """Yield the number of the first line and the text of each record that is complete."""
        if not self._has_begun:
            lines = list(dropwhile(lambda line: line.is_blank, lines))
            self._has_begun = bool(lines)
            if lines and not (lines[0].content or b"").lstrip().startswith(b"{"):
                self._cells, self.header = CsvCells(), lines[0].number
        self._waiting.extend(lines)
        if self._cells is None:
            starts = iter([line.number for line in lines])
        else:
            starts = (number for number, _ in self._cells.read(lines, last=last))
        for start in starts:
            yield from self._end(start)
            self._start = start
        if last:
            yield from self._end(None)

    def _end(self, before: int | None) -> Iterator[tuple[int, bytes]]:
        text = bytearray()
        while self._waiting and (before is None or self._waiting[0].number < before):
            text += (self._waiting.popleft().content or b"") + b"\n"
        if self._start is not None:
            yield self._start, bytes(text)
