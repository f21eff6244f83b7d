"""Lists of deleted users: after a backup is restored, users that were deleted since are deleted again.

A list has ids and times of deletion, and no other data of users. It is an export, as CSV or NDJSON, or the log of the
API, which names each deletion. Several of these in one file, one after the other, are read as one list.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from typing import BinaryIO, Final
from uuid import UUID

from asyncpg import Record

from birthday.clock import Clock
from birthday.core.document import parse_json
from birthday.errors import FieldError
from birthday.operations.transfer.cells import TOO_LONG
from birthday.operations.transfer.exporting import write_rows
from birthday.operations.transfer.records import Format, Rejected
from birthday.operations.transfer.source import Line, LineSplitter, read_chunks
from birthday.store.changes import Actor
from birthday.store.connection import Connection
from birthday.store.deletions import delete_again, open_deletions

DELETION_COLUMNS: Final = ("id", "deletedAt")
DELETED_EVENTS: Final = frozenset({"user.deleted", "user.erased"})
_BATCH: Final = 5000
_ACCEPTED: Final = (
    'a line with id and deletedAt, as "birthday export --deleted" writes it, or a line of the log with the event '
    "user.deleted or user.erased is accepted"
)


@dataclass(frozen=True, slots=True)
class DeletionSummary:
    """The result of an import: ``named`` counts the users in the list, ``deleted`` those of them who still existed."""

    named: int = 0
    deleted: int = 0
    rejected: int = 0
    messages_cancelled: int = 0


async def export_deletions(connection: Connection, file_format: Format, out: BinaryIO) -> int:
    """Write the deleted users whom retention has not removed yet, in order of deletion; return how many.

    Raises:
        UnavailableError: if ``out`` cannot be written to.
    """
    async with connection.transaction(isolation="read_committed", readonly=True):
        return await write_rows(await open_deletions(connection), DELETION_COLUMNS, _members, file_format, out)


async def import_deletions(
    source: FileIO,
    connection: Connection,
    clock: Clock,
    by: Actor,
    reject: Callable[[Rejected], None],
    *,
    dry_run: bool = False,
) -> DeletionSummary:
    """Delete the users that a list names, if they exist, and cancel their pending messages.

    An invalid line is handed to ``reject``. With ``dry_run`` the database stays as it is.

    Raises:
        UnavailableError: if the list cannot be read to its end. Users already deleted stay deleted.
    """
    summary = DeletionSummary()
    lines = LineSplitter()
    waiting: list[UUID] = []

    async def take(given: Sequence[Line], *, last: bool) -> None:
        nonlocal summary
        rejected = 0
        for line in given:
            found = _read_line(line)
            if isinstance(found, Rejected):
                reject(found)
                rejected += 1
            elif found is not None:
                waiting.append(found)
        users = messages = named = 0
        if waiting and (last or len(waiting) >= _BATCH):
            named = len(waiting)
            users, messages = await _delete(connection, waiting, clock.now(), by, dry_run=dry_run)
            waiting.clear()
        summary = DeletionSummary(
            summary.named + named,
            summary.deleted + users,
            summary.rejected + rejected,
            summary.messages_cancelled + messages,
        )

    async with aclosing(read_chunks(source)) as chunks:
        async for chunk in chunks:
            await take(lines.feed(chunk), last=False)
    await take(lines.finish(), last=True)
    return summary


async def _delete(
    connection: Connection, ids: list[UUID], now: datetime, by: Actor, *, dry_run: bool
) -> tuple[int, int]:
    transaction = connection.transaction()
    await transaction.start()
    try:
        users, messages = await delete_again(connection, ids, now, by)
    except BaseException:
        await transaction.rollback()
        raise
    await (transaction.rollback() if dry_run else transaction.commit())
    return len(users), messages


def _read_line(line: Line) -> UUID | Rejected | None:
    """Return the id of the user that a line names; None for a header, a blank line, or another event of a log."""
    if line.content is None:
        return Rejected(line.number, (FieldError("", TOO_LONG),))
    content = line.content.strip()
    if not content or content == b"id,deletedAt":
        return None
    if content.startswith(b"{"):
        return _read_object(line.number, content)
    cells = content.decode(errors="replace").split(",")
    return _parse_id(line.number, cells[0] if len(cells) == len(DELETION_COLUMNS) else None)


def _read_object(number: int, content: bytes) -> UUID | Rejected | None:
    try:
        data = parse_json(content)
    except ValueError:
        return _parse_id(number, None)
    if not isinstance(data, dict):
        return _parse_id(number, None)
    if "event" in data:
        return _parse_id(number, data.get("user_id")) if data["event"] in DELETED_EVENTS else None
    # Exported users have no deletedAt, so an export of users cannot delete anybody by mistake.
    return _parse_id(number, data.get("id") if set(data) == set(DELETION_COLUMNS) else None)


def _parse_id(number: int, text: object) -> UUID | Rejected:
    try:
        return UUID(text if isinstance(text, str) else "")
    except ValueError:
        return Rejected(number, (FieldError("", f"names no deleted user; {_ACCEPTED}"),))


def _members(row: Record) -> dict[str, object]:
    return {"id": str(row["id"]), "deletedAt": row["deleted_at"].isoformat().replace("+00:00", "Z")}
