"""Turns lines of CSV or NDJSON into rows, as they come in. A row that cannot be read does not end the import."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import dropwhile
from pathlib import PurePath
from typing import Final, NamedTuple, Protocol

from pydantic.alias_generators import to_camel

from birthday.core.document import parse_json
from birthday.core.fields import is_type
from birthday.core.origin import ORIGIN_FIELDS
from birthday.core.user import FIELDS, READ_ONLY
from birthday.errors import FieldError, InvalidInputError
from birthday.operations.transfer.cells import TOO_LONG, CsvCells
from birthday.operations.transfer.source import Line

COLUMNS: Final = tuple(name for name in FIELDS if name != "anniversaries")
DATE_PREFIX: Final = "anniversaries."
"""The column of a yearly date: followed by its type."""
READ_ONLY_COLUMNS: Final = tuple(dict.fromkeys((*ORIGIN_FIELDS, *READ_ONLY)))
"""Columns that only an export has. An import accepts and ignores them, so that an export can be imported.

Only an import that keeps ids reads those in ``ORIGIN_FIELDS``.
"""

_ZONE_COLUMNS: Final = {"timezone", "timezoneOffset"}
_NEEDED_COLUMNS: Final = ("firstName", "email", "dateOfBirth")
JSON_COLUMNS: Final = ("attributes", "anniversaryHistory")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,6}")


class Format(StrEnum):
    """The format of a file of users."""

    CSV = "csv"
    NDJSON = "ndjson"


class Row(NamedTuple):
    """One record as given. ``line`` is the number of its first line; ``data`` is for ``core.user.parse_profile``.

    If ids are kept, ``origin`` is for ``core.origin.parse_origin``.
    """

    line: int
    data: object
    origin: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is not imported, and all its errors. ``line`` is the number of its first line."""

    line: int
    errors: tuple[FieldError, ...]


class Records(Protocol):
    """Reads one format line by line."""

    def read(self, lines: Sequence[Line], *, last: bool) -> Iterator[Row | Rejected]:
        """Yield every record that ``lines`` completes; ``last`` says that no more will come.

        Raises:
            InvalidInputError: if the file as a whole cannot be read: its header is wrong.
        """
        ...


def format_of(name: str) -> Format | None:
    """Return the format for a file's extension; None if the extension is not known."""
    extensions = {".csv": Format.CSV, ".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON}
    return extensions.get(PurePath(name).suffix.lower())


class UserRecords:
    """Reads either format. If ``file_format`` is None, the first character that is not blank decides."""

    def __init__(self, file_format: Format | None, *, with_ids: bool = False) -> None:
        """Start before the first line."""
        self._format = file_format
        self._with_ids = with_ids
        self._records: Records | None = None

    def read(self, lines: Sequence[Line], *, last: bool) -> Iterator[Row | Rejected]:
        """Yield every record that ``lines`` completes; ``last`` says that no more will come.

        Raises:
            InvalidInputError: if the file as a whole cannot be read.
        """
        if self._records is None:
            # Blank lines before the first record mean nothing in either format.
            lines = list(dropwhile(lambda line: line.is_blank, lines))
            if not lines:
                return
            reader = NdjsonRecords if self._sniff(lines[0]) is Format.NDJSON else CsvRecords
            self._records = reader(with_ids=self._with_ids)
        yield from self._records.read(lines, last=last)

    def _sniff(self, first: Line) -> Format:
        start = (first.content or b"").lstrip()[:1]
        if start == b"[":
            problem = "the file is a JSON array; CSV, or NDJSON with one object on each line, is accepted"
            raise InvalidInputError(FieldError("", problem))
        return self._format or (Format.NDJSON if start == b"{" else Format.CSV)


class NdjsonRecords:
    """NDJSON: each line is what ``POST /users`` takes."""

    def __init__(self, *, with_ids: bool = False) -> None:
        """Start before the first line."""
        self._with_ids = with_ids

    def read(self, lines: Sequence[Line], *, last: bool) -> Iterator[Row | Rejected]:  # noqa: ARG002  a line is complete
        """Yield one record for each line that is not blank."""
        for line, content in lines:
            if content is None:
                yield _unreadable(line, TOO_LONG)
            elif content and not content.isspace():
                yield self._parse(line, content)

    def _parse(self, line: int, content: bytes) -> Row | Rejected:
        try:
            data = parse_json(content)
        except ValueError as error:
            return _unreadable(line, f"is not JSON: {error}")
        origin = {}
        if isinstance(data, dict):
            origin = {name: data.pop(name) for name in READ_ONLY_COLUMNS if name in data}
        return Row(line, data, _origin(origin) if self._with_ids else None)


class CsvRecords:
    """CSV (RFC 4180) with a header."""

    def __init__(self, *, with_ids: bool = False) -> None:
        """Start before the header."""
        self._with_ids = with_ids
        self._cells = CsvCells()
        self._header: Sequence[str | None] | None = None

    def read(self, lines: Sequence[Line], *, last: bool) -> Iterator[Row | Rejected]:
        """Yield one record for each row below the header that is not blank.

        Raises:
            InvalidInputError: if the header is wrong.
        """
        for line, cells in self._cells.read(lines, last=last):
            if self._header is None:
                self._header = _parse_header(cells, with_ids=self._with_ids)
            elif isinstance(cells, str):
                yield _unreadable(line, cells)
            elif len(cells) == len(self._header):
                data = _name_cells(self._header, cells)
                if data or any(cells):
                    yield self._row(line, data)
            elif any(cell.strip() for cell in cells):
                yield _unreadable(line, f"has {len(cells)} cells; {len(self._header)} are accepted, as in the header")

    def _row(self, line: int, data: Mapping[str, object]) -> Row:
        if not self._with_ids:
            return Row(line, data)
        return Row(line, {name: cell for name, cell in data.items() if name in FIELDS}, _origin(data))


def _origin(data: Mapping[str, object]) -> Mapping[str, object]:
    return {name: data[name] for name in ORIGIN_FIELDS if name in data}


def _parse_header(cells: list[str] | str, *, with_ids: bool) -> list[str | None]:
    """Return the field of each column; None for a column that is ignored."""
    known = ", ".join((*COLUMNS, f"{DATE_PREFIX}TYPE", *READ_ONLY_COLUMNS))
    accepted = f"accepted, separated by commas, are {known}"
    if isinstance(cells, str):
        raise InvalidInputError(FieldError("", f"the header of the file {cells}; {accepted}"))
    read = COLUMNS + ORIGIN_FIELDS if with_ids else COLUMNS
    fields: dict[str, str | None] = {}
    for cell in cells:
        name = column_name(cell)
        if name not in COLUMNS + READ_ONLY_COLUMNS and not is_date(name):
            raise InvalidInputError(FieldError("", f"the file has an unknown column '{cell:.200}'; {accepted}"))
        if name in fields:
            raise InvalidInputError(FieldError("", f"the file has more than one column {name}; one is accepted"))
        fields[name] = name if name in read or is_date(name) else None
    missing = [name for name in _NEEDED_COLUMNS if name not in fields]
    if _ZONE_COLUMNS.isdisjoint(fields):
        missing.append("timezone or timezoneOffset")
    if with_ids:
        missing += [name for name in ("id", "createdAt") if name not in fields]
    if missing:
        raise InvalidInputError(FieldError("", f"the file lacks the column {', '.join(missing)}; {accepted}"))
    return list(fields.values())


def column_name(cell: str) -> str:
    """Return the field that a cell of a header names, in the spelling of the API."""
    name = cell.strip()
    return to_camel(name) if "_" in name else name


def is_date(column: str) -> bool:
    """Whether a column is a yearly date."""
    return column.startswith(DATE_PREFIX) and is_type(column.removeprefix(DATE_PREFIX))


def _name_cells(header: Sequence[str | None], cells: Sequence[str]) -> Mapping[str, object]:
    """Return the cells as JSON members. Empty cells are left out; an offset becomes a number."""
    given: dict[str, object] = {}
    dates: dict[str, object] = {}
    for name, cell in zip(header, cells, strict=True):
        if not name or not (text := cell.strip()):
            continue
        if name.startswith(DATE_PREFIX):
            dates[name.removeprefix(DATE_PREFIX)] = text
        else:
            given[name] = _value(name, text)
    return given | {"anniversaries": dates} if dates else given


def _value(name: str, text: str) -> object:
    """Return the value of a cell. Text that is none stays as it is, so that validation reports it with other errors."""
    if name == "timezoneOffset" and _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    if name == "suppressed":
        return {"true": True, "false": False}.get(text.lower(), text)
    if name in JSON_COLUMNS:
        with suppress(ValueError):
            return parse_json(text.encode())
    return text


def _unreadable(line: int, problem: str) -> Rejected:
    return Rejected(line, (FieldError("", problem),))
