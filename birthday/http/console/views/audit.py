"""Audit: whether everybody who was due was greeted once, by day."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.core.audit import BROKEN, OF_MESSAGES, Finding
from birthday.errors import FieldError, InvalidInputError
from birthday.http.console.fields import given_fields, read_day, start_of
from birthday.http.console.progress import follow, progress
from birthday.http.console.rendering import page, render
from birthday.http.console.view import ROOT, View, now
from birthday.http.context import CONTEXT
from birthday.operations.audit import Auditor, Item

PATH: Final = f"{ROOT}/audit"
MOST_DAYS: Final = 92
LISTED: Final = 100
"""How many findings that must never occur are listed one by one."""
_WEEK: Final = 7
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Tally:
    """What an audit has found so far, by day, UTC; ``broken`` has the first findings that must never occur."""

    days: dict[date, Counter[Finding]] = field(default_factory=dict)
    broken: list[Item] = field(default_factory=list)

    def add(self, item: Item) -> None:
        """Count one finding."""
        self.days.setdefault(item.due_at.date(), Counter())[item.finding] += 1
        if item.finding in BROKEN and len(self.broken) < LISTED:
            self.broken.append(item)

    @property
    def rows(self) -> Sequence[tuple[date, int, Counter[Finding]]]:
        """Each day with the number of birthdays that were due and the findings, the latest day first."""
        return [(day, _expected(found), found) for day, found in sorted(self.days.items(), reverse=True)]

    @property
    def total(self) -> Counter[Finding]:
        """The findings of all days."""
        return sum(self.days.values(), Counter())


async def audit(request: web.Request) -> web.StreamResponse:
    """Ask for the days, or audit them while the page shows how far it is."""
    context, at = request.app[CONTEXT], now(request)
    fields = given_fields(request.query, "from", "to")
    first, last = read_day(fields, "from"), read_day(fields, "to")
    if first is None and last is None:
        return _ask(request, at)
    last = last or at.date()
    first = first or last - (_WEEK - 1) * _DAY
    if not first <= last < first + MOST_DAYS * _DAY:
        detail = f"{last} is not within {MOST_DAYS} days after {first}; 'birthday audit' takes any range"
        raise InvalidInputError(FieldError("", detail, "to"))
    auditor = Auditor(context.pool, context.planning, timedelta(days=context.settings.retention_days))
    passed = (min(last, at.date()) - first).days + 1
    tally = Tally({first + number * _DAY: Counter() for number in range(passed)})
    values = {"first": first, "last": last, "path": PATH}
    async with progress(request, "Audit", PATH, "audit.html", **values) as report:
        if context.auditing.locked():
            await report("Another audit is running. This one begins when it is done.")
        async with context.auditing:
            work = auditor.audit_with_notes(start_of(first), start_of(last) + _DAY, at, tally.add)
            result = await follow(report, work, lambda: f"{tally.total.total():,} birthdays looked at")
        await report(f"{result.expected:,} birthdays looked at. This is how it was at {at:%Y-%m-%d %H:%M:%S} UTC.")
        values = {"tally": tally, "audit": result, "listed": LISTED}
        report.result = render(request, "audit_result.html", **values)
    return report.answer


def _ask(request: web.Request, at: datetime) -> web.Response:
    last = at.date()
    return page(request, "audit.html", title="Audit", first=last - (_WEEK - 1) * _DAY, last=last, path=PATH)


def _expected(found: Counter[Finding]) -> int:
    return found.total() - sum(found[finding] for finding in OF_MESSAGES)


VIEWS: Final = (View("GET", "/audit", Scope.READ, audit, nav="Audit"),)
