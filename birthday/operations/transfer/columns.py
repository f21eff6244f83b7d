"""How the columns of a file, or the members of its first object, are read: what an import makes of each."""

from io import FileIO
from itertools import islice
from typing import Final, NamedTuple

from birthday.core.document import parse_json
from birthday.core.user import FIELDS
from birthday.errors import FieldError, InvalidInputError
from birthday.operations.transfer.cells import CsvCells
from birthday.operations.transfer.records import COLUMNS, READ_ONLY_COLUMNS, column_name, is_date
from birthday.operations.transfer.source import CHUNK_BYTES, LineSplitter

_MOST: Final = 100
"""How many columns are told of."""


class Column(NamedTuple):
    """A column as the file names it. ``field`` is what it is read as; None if it ``is_known`` but ignored."""

    given: str
    field: str | None
    is_known: bool


def read_columns(source: FileIO) -> list[Column]:
    """Return what the beginning of a file names; empty if it is blank or cannot be read. Rewinds the file.

    Raises:
        InvalidInputError: if it is no text file.
    """
    source.seek(0)
    lines = LineSplitter()
    try:
        while chunk := source.read(CHUNK_BYTES):
            if b"\0" in chunk:
                raise InvalidInputError(FieldError("", "the file is no text: CSV in UTF-8, or NDJSON, is accepted"))
            found = [line.content for line in lines.feed(chunk) if line.content is None or line.content.strip()]
            if found:
                return _columns(found[0] or b"")
        rest = lines.finish()
        return _columns(rest[0].content or b"") if rest else []
    finally:
        source.seek(0)


def _columns(line: bytes) -> list[Column]:
    if line.lstrip().startswith(b"{"):
        try:
            data = parse_json(line)
        except ValueError:
            return []
        return [_column(name, (*FIELDS,)) for name in islice(data, _MOST)] if isinstance(data, dict) else []
    for _, cells in CsvCells().read(LineSplitter().feed(line + b"\n"), last=True):
        if isinstance(cells, list):
            return [_column(column_name(cell), COLUMNS, cell) for cell in cells[:_MOST]]
    return []


def _column(name: str, fields: tuple[str, ...], given: str | None = None) -> Column:
    is_read = name in fields or is_date(name)
    return Column(name if given is None else given, name if is_read else None, is_read or name in READ_ONLY_COLUMNS)
