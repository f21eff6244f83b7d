"""Reports rejected rows and their errors: all of them in a file, the first few for the screen."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from birthday.errors import FieldError, InvalidInputError, UnavailableError
from birthday.operations.transfer.records import Rejected
from birthday.operations.transfer.source import STDIN

FIRST_ROWS: Final = 20


class Report:
    """Takes rejected rows one by one: writes each to ``file``, if there is one, and keeps the ``first`` few."""

    def __init__(self, file: BinaryIO | None, path: Path | None) -> None:
        self.count = 0
        self.first: list[Rejected] = []
        self.path = path
        self._file = file

    def add(self, rejected: Rejected) -> None:
        """Report one row.

        Raises:
            UnavailableError: if the file cannot be written any further.
        """
        self.count += 1
        if len(self.first) < FIRST_ROWS:
            self.first.append(rejected)
        if self._file:
            errors = [{"pointer": error.pointer, "detail": error.detail} for error in rejected.errors]
            line = orjson.dumps({"line": rejected.line, "errors": errors}, option=orjson.OPT_APPEND_NEWLINE)
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                raise UnavailableError("report", f"{self.path} cannot be written: {error.strerror}") from None


def default_report_path(source_name: str) -> Path | None:
    """Return the default path of the report: beside the source file; None for standard input."""
    return None if source_name == STDIN else Path(f"{source_name}.errors.ndjson")


@contextmanager
def open_report(path: Path | None, source: FileIO) -> Iterator[Report]:
    """Open a report. When the context ends, its file is renamed to ``path``, or removed if nothing was reported.

    Without a path, no file is written. The file is new and readable by its owner only, because it repeats personal
    data. If ``path`` exists already, the old file is kept under another name, such as ``PATH.1``; a link is not
    followed. If ``path`` is a device or a pipe, the report is written to it directly.

    Raises:
        InvalidInputError: if the report cannot be written, or would replace ``source``.
        UnavailableError: if the file cannot be renamed to ``path``; the text says where it is.
    """
    if path is None:
        yield Report(None, None)
        return
    try:
        if path.exists() and os.path.samestat(path.stat(), os.fstat(source.fileno())):
            raise InvalidInputError(FieldError("", f"the report {path} would replace the file that is imported"))
        fresh = None
        if path.exists() and not path.is_file():
            descriptor = os.open(path, os.O_WRONLY)
        else:
            descriptor, name = tempfile.mkstemp(prefix=f"{path.name[:200]}.", suffix=".new", dir=path.parent)
            fresh = Path(name)
    except OSError as error:
        raise InvalidInputError(FieldError("", f"the report {path} cannot be written: {error.strerror}")) from None
    file = os.fdopen(descriptor, "wb")
    report = Report(file, path)
    try:
        yield report
    finally:
        # Each row was flushed when it was added, so closing cannot fail with an error that was not raised before.
        with suppress(OSError):
            file.close()
        if fresh is not None and report.count:
            _put_in_place(fresh, path)
        elif fresh is not None:
            fresh.unlink()


def _put_in_place(fresh: Path, path: Path) -> None:
    try:
        number = 1
        while os.path.lexists(path):
            try:
                # A hard link adds the new name first, so that the old file always has a name.
                path.with_name(f"{path.name}.{number}").hardlink_to(path)
                break
            except FileExistsError:
                number += 1
        fresh.replace(path)
    except OSError as error:
        raise UnavailableError("report", f"{path} cannot be written: {error.strerror}; it is in {fresh}") from None
