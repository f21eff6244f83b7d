"""The output of an audit, as text or JSON: single findings as they are found, then the counts."""

import os
from datetime import UTC, date, datetime
from typing import Final, TextIO

import orjson

from birthday.core.audit import OF_MESSAGES, Finding
from birthday.operations.audit import Audit, Item

EXPECTED: Final = "expected"
LISTABLE: Final = (EXPECTED, *(finding.value for finding in Finding))
"""What can be listed: every birthday that was due, or the findings of one kind."""

_LINE: Final = "{:<20}  {:<9}  {:<36}  {:<4}  {:<16}  {:<36}  {}\n"


class AuditPrinter:
    """Writes each listed finding at once and keeps none in memory, because a list may be of any length.

    If the reader closes its end early, as ``head`` does, further output is dropped. The audit goes on without a reader,
    because its exit status is still needed.
    """

    def __init__(self, out: TextIO, listed: str | None) -> None:
        self._out = out
        self._open = True
        self._listed = listed
        self._count = 0

    def report(self, item: Item) -> None:
        """Write a finding if its kind is listed."""
        if self._listed == item.finding or (self._listed == EXPECTED and item.finding not in OF_MESSAGES):
            self._write(self._item(item))
            self._count += 1

    def end(self, audit: Audit, first: date, last: date, now: datetime) -> None:
        """Write the counts of an audit of the days from ``first`` to ``last``, UTC."""
        self._write(self._rest(audit, first, last, now), flush=True)

    def _write(self, text: str, *, flush: bool = False) -> None:
        if self._open:
            try:
                self._out.write(text)
                if flush:
                    self._out.flush()
            except BrokenPipeError:
                self._open = False
                # Text that is still buffered would raise again at exit.
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self._out.fileno())
                os.close(nothing)

    def _item(self, item: Item) -> str:
        heading = "" if self._count else _LINE.format("due at", "finding", "user", "year", "type", "message", "status")
        status = item.status or "-"
        status += f", repeats {item.repeats}" if item.repeats else ""
        status += f", sent {_instant(item.sent_at)}" if item.sent_at else ""
        message, due_at = str(item.message_id or "-"), _instant(item.due_at)
        return heading + _LINE.format(
            due_at, item.finding, str(item.user_id), item.year, item.message_type, message, status
        )

    def _rest(self, audit: Audit, first: date, last: date, now: datetime) -> str:
        heading = f"birthdays due from {first} to {last}, UTC, and by {_instant(now)}\n"
        counts = [f"{name:<9}  {count:>12,}\n" for name, count in _counts(audit).items()]
        return "".join(["\n" if self._count else "", heading, *counts, *(f"note: {note}\n" for note in audit.notes)])


class JsonAuditPrinter(AuditPrinter):
    """Writes one object. A list comes first in it, because the counts are known last."""

    def _item(self, item: Item) -> str:
        members = {
            "finding": item.finding,
            "userId": item.user_id,
            "type": item.message_type,
            "year": item.year,
            "dueAt": _instant(item.due_at),
            "messageId": item.message_id,
            "status": item.status,
        }
        if item.finding is Finding.DUPLICATE:
            members["repeats"] = item.repeats
        if item.sent_at is not None:
            members["sentAt"] = _instant(item.sent_at)
        return f"{self._before()}{orjson.dumps(members, default=str).decode()}"

    def _rest(self, audit: Audit, first: date, last: date, now: datetime) -> str:
        rest = {"from": first, "to": last, "asOf": _instant(now), **_counts(audit), "notes": audit.notes}
        text = orjson.dumps(rest).decode()
        return f"{'' if self._count else self._before()}],{text[1:]}\n" if self._listed else f"{text}\n"

    def _before(self) -> str:
        """Return what stands before the next member of the list."""
        return "," if self._count else '{"items":['


def _counts(audit: Audit) -> dict[str, int]:
    return {EXPECTED: audit.expected} | {finding.value: audit.counts[finding] for finding in Finding}


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
