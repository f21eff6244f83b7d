"""The output of a forecast, as text or JSON."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TextIO

import orjson
from rich.console import Console
from rich.table import Table

from birthday.core.forecast import DeliveryRate, Forecast, drain_seconds
from birthday.core.message import ON_TIME

_DAY: Final = timedelta(days=1)
_BARS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 110
_RULER: Final = "0     6     12    18    "


def print_forecast(forecast: Forecast, rate: DeliveryRate | None, out: TextIO, *, by_zone: bool = False) -> None:
    """Write a line for each UTC day with a plot of its hours, for each zone if ``by_zone``, and the conclusions."""
    hours = forecast.by_hour()
    table = Table(box=None)
    for heading in ("day, UTC", "messages", _RULER, "largest minute", "messages", "to drain"):
        table.add_column(heading, justify="right" if heading in {"messages", "to drain"} else "left", no_wrap=True)
    for day in _days(forecast):
        of_day = [hours.get(datetime(day.year, day.month, day.day, hour, tzinfo=UTC), 0) for hour in range(24)]
        peak = forecast.largest_minute(day)
        table.add_row(
            f"{day:%a %Y-%m-%d}",
            f"{sum(of_day):,}",
            "".join(_bar(messages, max(of_day)) for messages in of_day),
            f"{peak.at:%H:%M}" if peak else "-",
            f"{peak.messages:,}" if peak else "-",
            _duration(drain_seconds(peak, rate)) if peak else "-",
        )
    # Wide enough for the table: a narrower console would cut off digits.
    console = Console(file=out, width=_WIDTH)
    console.print(table)
    console.print()
    if by_zone:
        console.print(_zones(forecast))
        console.print()
    for line in _conclusion(forecast, rate):
        console.print(line, highlight=False, markup=False)


def write_json(forecast: Forecast, rate: DeliveryRate | None, out: TextIO, *, by_zone: bool = False) -> None:
    """Write one JSON object: counts by hour, the largest minute, the rate, and the time to drain."""
    measured_of = rate.measured_of if rate else None
    peak = forecast.largest_minute()
    members: dict[str, Any] = {
        "from": _instant(forecast.from_at),
        "to": _instant(forecast.to_at),
        "messages": forecast.messages,
        "hours": [{"at": _instant(at), "messages": messages} for at, messages in forecast.by_hour().items()],
        "largestMinute": {"at": _instant(peak.at), "messages": peak.messages} if peak else None,
        "deliveryRate": rate.per_second if rate else None,
        "rateMeasuredAt": _instant(measured_of.at) if measured_of else None,
        "drainSeconds": drain_seconds(peak, rate),
        "unknownZones": forecast.unknown_zones,
    }
    if rate and not rate.is_sustained:
        members["rateIsSustained"] = False
    if by_zone:
        members["zones"] = [
            {"zone": zone, "messages": of_zone.messages, "largestMinuteAt": _instant(of_zone.at)}
            for zone, of_zone in forecast.by_zone().items()
        ]
    out.write(f"{orjson.dumps(members).decode()}\n")


def _zones(forecast: Forecast) -> Table:
    """Return a table with a line for each zone, the one with most messages first."""
    table = Table("time zone", box=None)
    table.add_column("messages", justify="right")
    table.add_column("largest minute, UTC")
    for zone, of_zone in forecast.by_zone().items():
        table.add_row(zone, f"{of_zone.messages:,}", f"{of_zone.at:%a %Y-%m-%d %H:%M}")
    return table


def _conclusion(forecast: Forecast, rate: DeliveryRate | None) -> list[str]:
    lines = [f"{forecast.messages:,} messages fall due until {forecast.to_at:%Y-%m-%d %H:%M} UTC"]
    peak = forecast.largest_minute()
    if peak:
        lines.append(f"the largest minute is {peak.at:%Y-%m-%d %H:%M} UTC: {peak.messages:,} messages")
    if rate and rate.measured_of:
        burst = rate.measured_of
        lines.append(
            f"{rate.per_second:,.1f} messages/s were delivered of {burst.messages:,} that fell due at "
            f"{burst.at:%Y-%m-%d %H:%M} UTC"
        )
        if not rate.is_sustained:
            lines.append("that took less than a minute: whether the rate holds for longer is not known; see --rate")
    elif rate is None:
        lines.append("the delivery rate is unknown: no 100 messages fell due together in the last 7 days; see --rate")
    seconds = drain_seconds(peak, rate)
    if seconds is not None and peak:
        late = seconds > ON_TIME.total_seconds()
        verdict = "LATE: some are delivered more than" if late else "on time: all are delivered within"
        if rate and not rate.is_sustained and not late:
            verdict = f"if that rate holds, {verdict}"
        lines.append(f"it takes {_duration(seconds)} to drain, so {verdict} {ON_TIME.total_seconds():g} s after")
    lines += [f"note: '{zone}' is not a time zone: its users are not counted" for zone in forecast.unknown_zones]
    return lines


def _days(forecast: Forecast) -> list[date]:
    first, last = forecast.from_at.astimezone(UTC).date(), forecast.to_at.astimezone(UTC).date()
    return [first + number * _DAY for number in range((last - first).days + 1)]


def _bar(messages: int, highest: int) -> str:
    """Return the bar of one hour, relative to the highest hour of the day; it is blank only for 0 messages."""
    return _BARS[(messages * len(_BARS) - 1) // highest] if messages else " "


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:,.0f} min"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
