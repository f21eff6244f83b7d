"""Exports all live users to a file, in order of id, in pieces that fit in memory."""

import csv
import io
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import date, datetime
from typing import Any, BinaryIO, Final, Protocol
from uuid import UUID

import orjson
from asyncpg import Record
from asyncpg.pool import Pool

from birthday.errors import UnavailableError
from birthday.operations.transfer.records import DATE_PREFIX, JSON_COLUMNS, Format
from birthday.store.connection import Connection, borrow
from birthday.store.exporting import read_exported, read_extra_columns
from birthday.store.users import profile_of

EXPORT_COLUMNS: Final = (
    *("id", "firstName", "lastName", "email", "dateOfBirth", "timezone", "timezoneOffset"),
    *("createdAt", "updatedAt", "scheduleFrom", "greetedYear"),
)
"""The columns of every CSV export. Others follow them if a user has a value there."""
STREAMED_ROWS: Final = 200
"""How many rows a streamed piece has. While it is encoded, the event loop is blocked."""
_PIECE_ROWS: Final = 2000


class _Rows(Protocol):
    """Rows that are read piece by piece, as by a cursor of asyncpg."""

    async def fetch(self, n: int) -> Sequence[Record]:
        """Return the next ``n`` rows; fewer at the end."""
        ...


class _Users:
    """All live users, in order of id."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._after = UUID(int=0)

    async def fetch(self, n: int) -> Sequence[Record]:
        rows = await read_exported(self._connection, self._after, n)
        if rows:
            self._after = rows[-1]["id"]
        return rows


async def export_users(connection: Connection, file_format: Format, out: BinaryIO) -> int:
    """Write all live users as they are at this moment, in a form that an import takes; return how many.

    If the reader closes its end early, as ``head`` does, the export ends without an error.

    Raises:
        UnavailableError: if ``out`` cannot be written to, for example because its disk is full.
    """
    # Repeatable read, because these are several statements.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        columns = await _columns(connection, file_format)
        return await write_rows(_Users(connection), columns, _form(file_format), file_format, out)


async def stream_users(pool: Pool, file_format: Format) -> AsyncGenerator[bytes, None]:
    """Yield an export in pieces. Each user is as at the time when the piece is read.

    No connection is kept between two pieces, so a slow reader holds up neither others nor the cleanup of old rows.

    Raises:
        UnavailableError: if the database cannot be used, or a user has got a value for a column that is not there.
    """
    async with borrow(pool, None) as connection:
        columns = await _columns(connection, file_format)
    if file_format is Format.CSV:
        yield _csv_lines([columns])
    rows: Sequence[Record] = ()
    after: UUID | None = UUID(int=0)
    while after is not None:
        async with borrow(pool) as connection:
            rows = await read_exported(connection, after, STREAMED_ROWS)
        if rows:
            yield _encode([_form(file_format)(row) for row in rows], columns, file_format)
        after = rows[-1]["id"] if len(rows) == STREAMED_ROWS else None


async def write_rows(
    rows_left: _Rows,
    columns: Sequence[str],
    members_of: Callable[[Record], dict[str, Any]],
    file_format: Format,
    out: BinaryIO,
) -> int:
    """Write all rows, or as many as the reader takes; return how many were written."""
    written = 0
    try:
        if file_format is Format.CSV:
            _write(out, _csv_lines([columns]))
        while rows := await rows_left.fetch(_PIECE_ROWS):
            _write(out, _encode([members_of(row) for row in rows], columns, file_format))
            written += len(rows)
    except BrokenPipeError:
        _discard_rest(out)
    return written


async def _columns(connection: Connection, file_format: Format) -> list[str]:
    """Return the columns of an export; NDJSON has no others than each user needs."""
    return [*EXPORT_COLUMNS, *(await read_extra_columns(connection) if file_format is Format.CSV else ())]


def _form(file_format: Format) -> Callable[[Record], dict[str, Any]]:
    return _cells if file_format is Format.CSV else _members


def _encode(users: Sequence[dict[str, Any]], columns: Sequence[str], file_format: Format) -> bytes:
    if file_format is Format.NDJSON:
        return b"".join(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in users)
    known = set(columns)
    if not all(known.issuperset(each) for each in users):
        raise UnavailableError("export", "a user has got a value for a column that was empty at the start: try again")
    return _csv_lines([[each.get(name) for name in columns] for each in users])


def _write(out: BinaryIO, data: bytes) -> None:
    """Write and flush. Errors of the output are converted here, so that they do not look like database errors."""
    try:
        out.write(data)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_rest(out)
        raise UnavailableError("output", f"standard output cannot be written: {error.strerror}") from None


def _members(row: Record) -> dict[str, Any]:
    """Return a user as JSON members."""
    members = {
        "id": str(row["id"]),
        **profile_of(row, _dates(row["anniversaries"])).as_input(),
        "createdAt": _instant(row["created_at"]),
        "updatedAt": _instant(row["updated_at"]),
        "scheduleFrom": _instant(row["schedule_from"]),
        "greetedYear": row["greeted_year"],
    }
    if row["anniversary_history"]:
        members["anniversaryHistory"] = orjson.loads(row["anniversary_history"])
    return members


def _cells(row: Record) -> dict[str, Any]:
    """Return a user as cells by column."""
    cells = _members(row)
    for name, day in cells.pop("anniversaries", {}).items():
        cells[DATE_PREFIX + name] = day
    for name in JSON_COLUMNS:
        if name in cells:
            cells[name] = orjson.dumps(cells[name]).decode()
    if "suppressed" in cells:
        cells["suppressed"] = "true"
    return cells


def _dates(text: str | None) -> dict[str, date]:
    return {name: date.fromisoformat(day) for name, day in orjson.loads(text).items()} if text else {}


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _csv_lines(rows: Sequence[Sequence[object]]) -> bytes:
    # Cells that a spreadsheet would take for a formula are not escaped, because an import must give back the very same
    # users.
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _discard_rest(out: BinaryIO) -> None:
    """Point the descriptor at the null device, so that flushing the buffer at exit raises no error."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, out.fileno())
    os.close(nothing)
