"""Failures: why messages failed, how many and since when, and the messages of a cause."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.core.message import ErrorType
from birthday.http.console.charts import WIDE, Bar, Chart, bar_chart
from birthday.http.console.failed import FIELDS, PATH, Choice, choose, count
from birthday.http.console.fields import address, read
from birthday.http.console.privacy import note_viewed
from birthday.http.console.rendering import page
from birthday.http.console.view import View, now
from birthday.http.context import CONTEXT
from birthday.http.cursors import message_cursor, read_message_cursor
from birthday.store.causes import MOST, Cause, list_failed
from birthday.store.connection import borrow
from birthday.store.history import FIRST
from birthday.store.users import read_users

ROWS: Final = 50
"""How many causes are shown, and how many messages."""
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_MOST_HOURS: Final = 48
_MOST_DAYS: Final = 60
_LABELLED_DAYS: Final = 14
"""So many days are shown at least, each with a label; of more, each seventh has one."""


async def failures(request: web.Request) -> web.StreamResponse:
    """Show the causes of what failed, and a page of the messages."""
    choice = choose(request, request.query)
    after = read(request.query, "after", read_message_cursor, "the link to the next page has it") or FIRST
    causes = await count(request, choice)
    async with borrow(request.app[CONTEXT].pool) as connection:
        messages = await list_failed(connection, choice.wanted, after, ROWS + 1)
        ids = [message.user_id for message in messages[:ROWS]]
        users = await read_users(connection, ids, now(request), request.app[CONTEXT].settings.rules)
    await note_viewed(request, [user.id for user in users])
    shown = causes.causes[:ROWS]
    following = message_cursor(messages[ROWS - 1]) if len(messages) > ROWS else None
    return page(
        request,
        "failures.html",
        title="Failures",
        fields=choice.fields,
        given={name: choice.fields.get(name, "") for name in FIELDS},
        causes=[(cause, means, address(PATH, means)) for cause in shown if (means := _fields_of(choice, cause))],
        more_causes=len(causes.causes) - ROWS,
        total=causes.messages,
        most=MOST,
        chart=_chart(causes.hours, now(request)),
        messages=messages[:ROWS],
        users={user.id: user.profile for user in users},
        beginning=None if after == FIRST else choice.page,
        following=following and address(PATH, {**choice.fields, "after": following}),
        error_types=tuple(ErrorType),
        path=PATH,
        archive=address(f"{PATH}/archive", choice.fields),
    )


def _fields_of(choice: Choice, cause: Cause) -> dict[str, str]:
    """Return the fields that mean the messages of a cause. The beginning of an error is found sooner than a status."""
    own = {"error": cause.error_type or "", "detail": cause.detail, "type": cause.message_type}
    return {**choice.fields, **{name: text for name, text in own.items() if text}}


def _chart(hours: Mapping[datetime, int], at: datetime) -> Chart | None:
    """Return how many messages failed in each hour of two days, or on each day if some failed earlier."""
    if not hours:
        return None
    this_hour, first = max(at, *hours).replace(minute=0, second=0, microsecond=0), min(hours)
    if this_hour - first < _MOST_HOURS * _HOUR:
        starts = [this_hour - number * _HOUR for number in reversed(range(_MOST_HOURS))]
        bars = [
            _bar(f"{start:%Y-%m-%d %H}:00 UTC", hours.get(start, 0), "" if start.hour % 6 else f"{start:%H}:00")
            for start in starts
        ]
        return bar_chart("Failed messages by hour, the last two days", bars, WIDE)
    today = this_hour.date()
    length = min(_MOST_DAYS, max(_LABELLED_DAYS, (today - first.date()).days + 1))
    days = {today - number * _DAY: 0 for number in reversed(range(length))}
    for hour, number in hours.items():
        days[max(hour.date(), min(days))] += number
    every = 1 if length <= _LABELLED_DAYS else 7
    bars = [
        _bar(f"{day}", number, "" if (today - day).days % every else f"{day:%m-%d}") for day, number in days.items()
    ]
    earlier = "; the first bar has all earlier ones" if length == _MOST_DAYS else ""
    return bar_chart(f"Failed messages by day, the last {length} days{earlier}", bars, WIDE)


def _bar(when: str, number: int, label: str) -> Bar:
    return Bar(number, f"{when}: {number:,} failed", label, "bad")


VIEWS: Final = (View("GET", "/failures", Scope.READ, failures, nav="Failures"),)
