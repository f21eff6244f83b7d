"""The calendar: how many messages fall on each of the coming days, and whether the largest minutes are on time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.core.dates import parse_date
from birthday.core.forecast import DeliveryRate, Forecast, Peak, drain_seconds
from birthday.core.message import ON_TIME
from birthday.core.occasion import LEAP_MONTH_DAY, month_days_on
from birthday.core.text import show
from birthday.errors import FieldError, InvalidInputError, NotFoundError
from birthday.http.console.charts import WIDE, Bar, Chart, bar_chart
from birthday.http.console.heat_map import lay_out
from birthday.http.console.rendering import page, see_other
from birthday.http.console.view import ROOT, View, now
from birthday.http.context import CONTEXT
from birthday.operations.calendar import DAYS, Day

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A day, its largest minute, and how long that takes at the measured rate: None if nobody knows."""

    day: Day
    peak: Peak | None
    seconds: float | None
    word: str
    kind: str


@dataclass(frozen=True, slots=True)
class _Minute:
    """What falls due at one instant, and in which zones, the largest first."""

    at: datetime
    messages: int
    zones: Sequence[str]


async def calendar(request: web.Request) -> web.StreamResponse:
    """Show the coming 366 days."""
    if chosen := request.query.get("day"):
        return see_other(f"{ROOT}/calendar/{_parse(chosen).isoformat()}")
    context = request.app[CONTEXT]
    year = await context.calendar.read_year()
    if year is None:
        answer = page(request, "calendar_counting.html", title="Calendar")
        answer.headers["Refresh"] = "1"
        return answer
    wanted = request.query.get("type", "")
    if wanted not in {"", *year.types}:
        raise NotFoundError(f"no dates of the type {show(wanted)} are planned")
    shown = [year.types[wanted]] if wanted else year.types.values()
    counts = sum((Counter(of_type) for of_type in shown), Counter[date]())
    verdicts = [_judge(day, year.rate) for day in year.week]
    largest = _judge(year.largest, year.rate) if year.largest else None
    return page(
        request,
        "calendar.html",
        title="Calendar",
        year=year,
        wanted=wanted,
        types=sorted(year.types),
        months=lay_out(year.days, counts),
        messages=counts.total(),
        verdicts=verdicts,
        largest=largest,
        on_time=ON_TIME.total_seconds(),
        rules=context.settings.rules,
    )


async def day(request: web.Request) -> web.StreamResponse:
    """Show the minutes of one local date."""
    context = request.app[CONTEXT]
    on = _parse(request.match_info["day"])
    today = now(request).astimezone(UTC).date()
    first, last = today - _DAY, today + DAYS * _DAY
    if not first <= on <= last:
        raise NotFoundError(f"the calendar reaches from {first} to {last}, and {on} is not in it")
    [found] = await context.calendar.read_days([on])
    year = await context.calendar.read_year(0)
    verdict = _judge(found, year.rate if year else None)
    return page(
        request,
        "calendar_day.html",
        title=f"{on:%A}, {on.day} {on:%B %Y}",
        on=on,
        verdict=verdict,
        minutes=[_Minute(at, messages, _zones(found, at)) for at, messages in sorted(found.forecast.due.items())],
        hours=_hours(found.forecast),
        rate=year.rate if year else None,
        previous=on - _DAY if on > first else None,
        next=on + _DAY if on < last else None,
        has_leap_day=LEAP_MONTH_DAY in month_days_on(on, context.settings.rules.leap_day),
        is_today=on == today,
    )


def _judge(found: Day, rate: DeliveryRate | None) -> _Verdict:
    peak = found.forecast.largest_minute()
    seconds = drain_seconds(peak, rate)
    if peak is None:
        return _Verdict(found, None, 0, "nothing due", "idle")
    if seconds is None or rate is None:
        return _Verdict(found, peak, None, "rate unknown", "idle")
    if seconds > ON_TIME.total_seconds():
        return _Verdict(found, peak, seconds, "late", "bad")
    if rate.is_sustained:
        return _Verdict(found, peak, seconds, "on time", "good")
    return _Verdict(found, peak, seconds, "on time, if the rate holds", "warn")


def _hours(forecast: Forecast) -> Chart:
    hours = forecast.by_hour()
    bars = []
    at, last = (min(hours), max(hours)) if hours else (forecast.to_at, forecast.from_at)
    while at <= last:
        messages = hours.get(at, 0)
        text = f"{at:%a %H:%M} UTC: {messages:,} messages"
        bars.append(Bar(messages, text, f"{at:%H}" if at.hour % 3 == 0 else ""))
        at += timedelta(hours=1)
    return bar_chart(f"Messages by hour: {forecast.messages:,} in all", bars, WIDE)


def _zones(found: Day, at: datetime) -> list[str]:
    zones = {zone: due[at] for zone, due in found.forecast.zones.items() if due.get(at)}
    return sorted(zones, key=lambda zone: (-zones[zone], zone))


def _parse(text: str) -> date:
    try:
        return parse_date(text)
    except ValueError as error:
        raise InvalidInputError(FieldError("day", str(error))) from None


VIEWS: Final = (
    View("GET", "/calendar", Scope.READ, calendar, nav="Calendar"),
    View("GET", "/calendar/{day}", Scope.READ, day),
)
