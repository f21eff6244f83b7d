"""The output of an audit, as text or JSON: single findings as they are found, then the counts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Protocol, TextIO

import orjson

from birthday.core.audit import OF_MESSAGES, Finding
from birthday.operations.audit import Audit, Auditor, Item

EXPECTED: Final = "expected"
LISTABLE: Final = (EXPECTED, *(finding.value for finding in Finding))
"""What can be listed: every birthday that was due, or the findings of one kind."""

_DAY: Final = timedelta(days=1)


async def run_audit(
    auditor: Auditor, first: date, last: date, now: datetime, out: TextIO, *, listed: str | None, as_json: bool
) -> Audit:
    """Audit what is due on the days from ``first`` to ``last``, UTC, and write the result to ``out``.

    Findings are written at once and not kept in memory, because a list may be of any length.
    """
    from_at = datetime.combine(first, time(), UTC)
    to_at = datetime.combine(min(last, date.max - _DAY) + _DAY, time(), UTC)
    screen = _Screen(out)
    printer: _Printer = _Json(screen, listed) if as_json else _Text(screen)

    def report(item: Item) -> None:
        if listed == item.finding or (listed == EXPECTED and item.finding not in OF_MESSAGES):
            printer.item(item)

    audit = await auditor.audit_with_notes(from_at, to_at, now, report)
    printer.end(audit, first, last, now)
    screen.flush()
    return audit


class _Screen:
    """Where the audit is written. If the reader closes its end early, as ``head`` does, further output is dropped."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._open = True

    def write(self, text: str) -> None:
        """Write, unless the reader has gone. The audit goes on without it, because its exit status is still needed."""
        if self._open:
            with self._unless_closed():
                self._out.write(text)

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        if self._open:
            with self._unless_closed():
                self._out.flush()

    @contextmanager
    def _unless_closed(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._open = False
            # Text that is still buffered would raise again at exit.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._out.fileno())
            os.close(nothing)


class _Printer(Protocol):
    """Writes an audit in some form."""

    def item(self, item: Item) -> None:
        """Write a single finding."""
        ...

    def end(self, audit: Audit, first: date, last: date, now: datetime) -> None:
        """Write the counts."""
        ...


class _Text:
    """Lines for a person."""

    _LINE = "{:<20}  {:<9}  {:<36}  {:<4}  {:<36}  {}\n"

    def __init__(self, out: _Screen) -> None:
        self._out = out
        self._listing = False

    def item(self, item: Item) -> None:
        """Write a line, below a heading."""
        if not self._listing:
            self._out.write(self._LINE.format("due at", "finding", "user", "year", "message", "status"))
            self._listing = True
        status = item.status or "-"
        remark = f", repeats {item.repeats}" if item.repeats else ""
        remark += f", sent {_instant(item.sent_at)}" if item.sent_at else ""
        message = str(item.message_id or "-")
        due_at = _instant(item.due_at)
        self._out.write(
            self._LINE.format(due_at, item.finding, str(item.user_id), item.year, message, f"{status}{remark}")
        )

    def end(self, audit: Audit, first: date, last: date, now: datetime) -> None:
        """Write a table and the notes."""
        if self._listing:
            self._out.write("\n")
        self._out.write(f"birthdays due from {first} to {last}, UTC, and by {_instant(now)}\n")
        for name, count in _counts(audit).items():
            self._out.write(f"{name:<9}  {count:>12,}\n")
        for note in audit.notes:
            self._out.write(f"note: {note}\n")


class _Json:
    """One object. A list comes first in it, because the counts are known last."""

    def __init__(self, out: _Screen, listed: str | None) -> None:
        """Begin the list if ``listed``."""
        self._out = out
        self._listed = listed
        self._separator = ""
        if listed:
            out.write('{"items":[')

    def item(self, item: Item) -> None:
        """Write a member of the list."""
        members = {
            "finding": item.finding,
            "userId": item.user_id,
            "year": item.year,
            "dueAt": _instant(item.due_at),
            "messageId": item.message_id,
            "status": item.status,
        }
        if item.finding is Finding.DUPLICATE:
            members["repeats"] = item.repeats
        if item.sent_at is not None:
            members["sentAt"] = _instant(item.sent_at)
        self._out.write(f"{self._separator}{orjson.dumps(members, default=str).decode()}")
        self._separator = ","

    def end(self, audit: Audit, first: date, last: date, now: datetime) -> None:
        """Write the rest of the object."""
        rest = {"from": first, "to": last, "asOf": _instant(now), **_counts(audit), "notes": audit.notes}
        text = orjson.dumps(rest).decode()
        self._out.write(f"],{text[1:]}\n" if self._listed else f"{text}\n")


def _counts(audit: Audit) -> dict[str, int]:
    return {EXPECTED: audit.expected} | {finding.value: audit.counts[finding] for finding in Finding}


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
