"""Exports all live users to a file, in order of id, in pieces that fit in memory."""

import csv
import io
import os
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, BinaryIO, Final

import orjson
from asyncpg import Record
from asyncpg.cursor import Cursor

from birthday.errors import UnavailableError
from birthday.operations.transfer.records import DATE_PREFIX, JSON_COLUMNS, Format
from birthday.store.transfer import open_users, read_extra_columns
from birthday.store.users import Connection, profile_of

EXPORT_COLUMNS: Final = (
    *("id", "firstName", "lastName", "email", "dateOfBirth", "timezone", "timezoneOffset"),
    *("createdAt", "updatedAt", "scheduleFrom", "greetedYear"),
)
"""The columns of every CSV export. Others follow them if a user has a value there."""
_PIECE_ROWS: Final = 2000


async def export_users(connection: Connection, file_format: Format, out: BinaryIO) -> int:
    """Write all live users as they are at this moment, in a form that an import takes; return how many.

    If the reader closes its end early, as ``head`` does, the export ends without an error.

    Raises:
        UnavailableError: if ``out`` cannot be written to, for example because its disk is full.
    """
    # Repeatable read, because the columns and the users are two statements.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await open_users(connection)
        if file_format is Format.NDJSON:
            return await write_rows(rows, EXPORT_COLUMNS, _members, file_format, out)
        columns = [*EXPORT_COLUMNS, *await read_extra_columns(connection)]
        return await write_rows(rows, columns, _cells, file_format, out)


async def write_rows(
    cursor: Cursor,
    columns: Sequence[str],
    members_of: Callable[[Record], dict[str, Any]],
    file_format: Format,
    out: BinaryIO,
) -> int:
    """Write all rows of a cursor, or as many as the reader takes; return how many were written."""
    written = 0
    try:
        if file_format is Format.CSV:
            _write(out, _csv_lines([columns]))
        while rows := await cursor.fetch(_PIECE_ROWS):
            members = [members_of(row) for row in rows]
            if file_format is Format.CSV:
                _write(out, _csv_lines([[each.get(name) for name in columns] for each in members]))
            else:
                _write(out, b"".join(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in members))
            written += len(rows)
    except BrokenPipeError:
        _discard_rest(out)
    return written


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
