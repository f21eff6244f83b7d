"""The overview: is all well, what wants attention, what comes next? And the switch that stops and starts sending."""

from datetime import datetime, timedelta
from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.core.forecast import Forecast
from birthday.errors import FieldError, InvalidInputError
from birthday.http.console.charts import NARROW, WIDE, Bar, Chart, bar_chart
from birthday.http.console.concerns import FAILURES, RUNBOOK, find_concerns, headline
from birthday.http.console.formats import duration
from birthday.http.console.forms import confirm, done, is_confirmed, read_form
from birthday.http.console.rendering import page
from birthday.http.console.view import ROOT, View, actor_of, can
from birthday.http.context import CONTEXT, ApiContext
from birthday.operations.overview import Day, Overview, OverviewReader
from birthday.operations.pauses import switch
from birthday.store.overview import MOST_AHEAD

READER: web.AppKey[OverviewReader] = web.AppKey("overview")

_BEGIN: Final = (
    ("/users/new", "Add yourself, with today as your birthday"),
    ("/import", "Import a file of users"),
    ("/templates", "Change the text, and send yourself a test"),
)
"""What a new installation offers: pages, below the console."""
_CHECK_SECONDS: Final = 0.2
"""What is checked for longer shows at a later refresh."""
_HOUR: Final = timedelta(hours=1)
_LATENESS: Final = ("1 s", "5 s", "1 min", "10 min", "1 h", "longer")
"""The names of the classes of lateness."""


def make_reader(context: ApiContext) -> OverviewReader:
    """Return what reads the overview."""
    return OverviewReader(context.pool, context.metrics)


async def overview(request: web.Request) -> web.StreamResponse:
    """Show the state of the whole installation."""
    context = request.app[CONTEXT]
    found = await request.app[READER].read(context.clock.now())
    checks = await context.readiness.check_within(_CHECK_SECONDS)
    concerns = find_concerns(found, context.settings, checks, context.keys.expiring, context.notices.texts)
    return page(
        request,
        "overview.html",
        title="Overview",
        headline=headline(found, concerns),
        concerns=concerns,
        found=found,
        overdue_seconds=found.overdue.oldest_seconds(found.at),
        peak=found.ahead.largest_minute(),
        hours=_hours(found.ahead, found.planned_until),
        lateness=_lateness(found.day),
        types=_types(context, found),
        begin=_BEGIN if can(request, Scope.WRITE) else (),
        runbook=RUNBOOK,
        failures=FAILURES,
        most_ahead=MOST_AHEAD,
    )


async def switch_sending(request: web.Request) -> web.StreamResponse:
    """Pause or resume one type of messages, or all."""
    context, form = request.app[CONTEXT], await read_form(request)
    action, message_type = form.get("action", ""), form.get("type") or None
    if action not in {"pause", "resume"}:
        raise InvalidInputError(FieldError("", "pause and resume are accepted", "action"))
    what = "all messages" if message_type is None else f"messages of the type {message_type}"
    if not await is_confirmed(request):
        found = await request.app[READER].read(context.clock.now())
        facts = [
            ("Waiting now", f"{found.overdue.messages:,}"),
            ("Due in the next 24 hours", f"{found.ahead.messages:,} of all types"),
        ]
        if action == "pause":
            window = duration(context.settings.catch_up_window)
            facts.append(("Too late", f"messages that wait longer than {window} expire"))
        fields = {"action": action, "type": message_type or ""}
        return confirm(request, f"{action.capitalize()} {what}?", action=f"{action} {what}", fields=fields, facts=facts)
    await switch(context.pool, message_type, paused=action == "pause", now=context.clock.now(), by=actor_of(request))
    result = "are paused" if action == "pause" else "are sent again"
    return done(request, ROOT, f"{what.capitalize()} {result}. All processes obey within five seconds.")


def _types(context: ApiContext, found: Overview) -> list[tuple[str, bool]]:
    """Return each type that is planned or paused, and whether it is paused."""
    paused = {one.message_type for one in found.paused}
    return [(name, name in paused) for name in dict.fromkeys([*context.pauses.types, *sorted(paused)])]


def _hours(ahead: Forecast, planned_until: datetime | None) -> Chart:
    by_hour = ahead.by_hour()
    first = ahead.from_at.replace(minute=0, second=0, microsecond=0)
    values = []
    for number in range(int((ahead.to_at - first) / _HOUR) + 1):
        at = first + number * _HOUR
        messages = by_hour.get(at, 0)
        is_planned = messages > 0 or (planned_until is not None and at < planned_until)
        text = f"{at:%H:%M} UTC: {_messages(messages)}{'' if is_planned else ', not planned yet'}"
        label = f"{at:%H}" if at.hour % 3 == 0 else ""
        values.append(Bar(messages, text, label, "" if is_planned else "soft"))
    peak = max(values, key=lambda one: one.value)
    return bar_chart(f"Messages by hour, UTC. The largest hour is {peak.text}.", values, WIDE)


def _messages(count: int) -> str:
    return f"{count:,} {'message' if count == 1 else 'messages'}"


def _lateness(day: Day) -> Chart:
    values = []
    for number, (name, messages) in enumerate(zip(_LATENESS, day.lateness, strict=True)):
        within = f"later than {_LATENESS[-2]}" if name == _LATENESS[-1] else f"within {name}"
        label = name if name == _LATENESS[-1] else f"≤ {name}"
        values.append(Bar(messages, f"{_messages(messages)} {within}", label, "good" if number < 3 else "bad"))
    return bar_chart(
        f"Lateness of today's {day.delivered:,} deliveries, {day.on_time:,} within a minute.", values, NARROW
    )


VIEWS: Final = (
    View("GET", "", Scope.READ, overview, nav="Overview"),
    View("POST", "/pauses", Scope.ADMIN, switch_sending),
)
