"""Splits lines into cells with the ``csv`` module (RFC 4180), as lines come in."""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Self

from birthday.operations.transfer.source import MAX_LINE_BYTES, Line

TOO_LONG: Final = f"is longer than the {MAX_LINE_BYTES:,} bytes that are accepted"
MAX_LINES: Final = 5000
"""How many lines a record has: more than any user needs, even with one character of ``attributes`` on each line."""
_LINE_OVERHEAD: Final = 200
"""About how much memory a line takes besides its bytes."""
_TOO_MANY_LINES: Final = f"has more lines than the {MAX_LINES:,} that are accepted"


class _RecordGoesOnError(Exception):
    """A record goes on in a line that has not been read yet."""


class _BrokenError(Exception):
    """A record cannot be read. The text says why."""


class CsvCells:
    """The ``csv`` module, fed line by line. A broken record loses one line only.

    Otherwise a quotation mark that is never closed would swallow the rest of the file. A broken record is given up at
    the line where it starts, and reading resumes at the next line. From there to the line where the record broke, no
    line ends a cell that an earlier one has begun. So a record that starts there and does not end in its line would
    break at the same place, and is given up at once. Otherwise many such records would be read to there again and
    again.
    """

    def __init__(self) -> None:
        self._waiting: deque[Line] = deque()
        self._record: list[Line] = []
        self._record_bytes = 0
        self._missing = 0
        self._to_wait_for = 0
        self._broken_at = 0
        self._problem = ""
        self._last = False
        self._reader = csv.reader(self, strict=True)

    def read(self, lines: Sequence[Line], *, last: bool) -> Iterator[tuple[int, list[str] | str]]:
        """Yield for each record the number of its first line, and its cells or a description of the error.

        Without ``lines``, nothing more comes for now: then what has come is looked at, even if it is little.
        """
        self._take(lines)
        self._last = last
        while last or self._missing <= 0:
            try:
                cells = self._next_record()
            except StopIteration:
                return
            except _RecordGoesOnError:
                # The reader must start the record again. Waiting for as much again keeps this cheap.
                missing = sum(map(_memory, self._record))
                self._give_back(self._record)
                self._missing = self._to_wait_for = missing
                return
            except csv.Error as error:
                # The text after the dash is advice for programmers.
                yield self._give_up(f"is not CSV: {str(error).partition(' - ')[0]}")
            except UnicodeDecodeError:
                yield self._give_up("is not UTF-8")
            except _BrokenError as error:
                yield self._give_up(str(error))
            else:
                line = self._record[0].number
                self._give_back(())
                if cells:
                    yield line, cells

    def _take(self, lines: Sequence[Line]) -> None:
        self._waiting.extend(lines)
        if self._missing > 0:
            self._missing -= sum(map(_memory, lines))
            if not lines and self._missing < self._to_wait_for:
                self._missing = 0

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
        if self._record and self._record[0].number < self._broken_at:
            raise _BrokenError(self._problem)
        if len(self._record) == MAX_LINES:
            raise _BrokenError(_TOO_MANY_LINES)
        if not self._waiting:
            if self._last:
                raise StopIteration
            raise _RecordGoesOnError
        line = self._waiting.popleft()
        self._record.append(line)
        if line.content is None:
            raise _BrokenError(TOO_LONG)
        self._record_bytes += len(line.content)
        if self._record_bytes > MAX_LINE_BYTES:
            raise _BrokenError(TOO_LONG)
        return line.content.decode() + "\n"

    def _give_up(self, problem: str) -> tuple[int, str]:
        first, *others = self._record
        if others:
            self._broken_at, self._problem = others[-1].number, problem
        self._give_back(others)
        return first.number, problem

    def _give_back(self, lines: Sequence[Line]) -> None:
        self._waiting.extendleft(reversed(lines))
        self._record.clear()
        self._record_bytes = self._missing = 0


def _memory(line: Line) -> int:
    return len(line.content or b"") + _LINE_OVERHEAD
