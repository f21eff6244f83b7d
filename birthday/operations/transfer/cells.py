"""Splits lines into cells with the ``csv`` module (RFC 4180), as lines come in."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Self

from birthday.operations.transfer.source import MAX_LINE_BYTES, Line

TOO_LONG: Final = f"is longer than the {MAX_LINE_BYTES:,} bytes that are accepted"


class _RecordGoesOnError(Exception):
    """A record goes on in a line that has not been read yet."""


class _LineTooLongError(Exception):
    """A line, or all lines of one record together, are longer than is accepted."""


class CsvCells:
    """The ``csv`` module, fed line by line. A broken record loses one line only.

    Otherwise a quotation mark that is never closed would swallow the rest of the file. A broken record is given up at
    the line where it starts, and reading resumes at the next line.
    """

    def __init__(self) -> None:
        self._waiting: deque[Line] = deque()
        self._record: list[Line] = []
        self._record_bytes = 0
        self._enough = 0
        self._last = False
        self._reader = csv.reader(self, strict=True)

    def read(self, lines: Iterable[Line], *, last: bool) -> Iterator[tuple[int, list[str] | str]]:
        """Yield for each record the number of its first line, and its cells or a description of the error."""
        self._waiting.extend(lines)
        self._last = last
        while last or len(self._waiting) >= self._enough:
            try:
                cells = self._next_record()
            except StopIteration:
                return
            except _RecordGoesOnError:
                # The reader must start the record again. Waiting for twice as many lines keeps this cheap.
                enough = 2 * len(self._record)
                self._give_back(self._record)
                self._enough = enough
                return
            except csv.Error as error:
                # The text after the dash is advice for programmers.
                yield self._give_up(f"is not CSV: {str(error).partition(' - ')[0]}")
            except UnicodeDecodeError:
                yield self._give_up("is not UTF-8")
            except _LineTooLongError:
                yield self._give_up(TOO_LONG)
            else:
                line = self._record[0].number
                self._give_back(())
                if cells:
                    yield line, cells

    def _next_record(self) -> list[str]:
        if self._waiting and (content := self._waiting[0].content) is not None and b'"' not in content:
            # Without quotation marks a record is a line, and cutting it here takes half as long.
            self._record.append(self._waiting.popleft())
            text = content.decode().removesuffix("\r")
            return text.split(",") if text else []
        return next(self._reader)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        """Hand the ``csv`` module its next line."""
        if not self._waiting:
            if self._last:
                raise StopIteration
            raise _RecordGoesOnError
        line = self._waiting.popleft()
        self._record.append(line)
        if line.content is None:
            raise _LineTooLongError
        self._record_bytes += len(line.content)
        if self._record_bytes > MAX_LINE_BYTES:
            raise _LineTooLongError
        return line.content.decode() + "\n"

    def _give_up(self, problem: str) -> tuple[int, str]:
        line = self._record[0].number
        self._give_back(self._record[1:])
        return line, problem

    def _give_back(self, lines: Sequence[Line]) -> None:
        self._waiting.extendleft(reversed(lines))
        self._record.clear()
        self._record_bytes = self._enough = 0
