"""The filters of the templates: numbers, times and durations as text, and personal data for whom it may concern."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from birthday.core.zone import load_zone
from birthday.errors import InvalidInputError

MOST_COUNTED: Final = 10_000
"""Counts are exact up to this number; more is shown as 10,000+."""


def number(value: float) -> str:
    """Return a number with separators: ``12,345``."""
    return f"{value:,}"


def counted(value: int) -> str:
    """Return a count whose query stopped after ``MOST_COUNTED`` rows: ``9,999``, or ``10,000+``."""
    return f"{MOST_COUNTED:,}+" if value > MOST_COUNTED else f"{value:,}"


def share(part: float, whole: float) -> str:
    """Return a part of a whole in per cent; 100 % only if nothing is missing."""
    if not whole:
        return "-"
    return "100 %" if part == whole else f"{min(99.9, 100 * part / whole):.1f} %"


def instant(at: datetime | None, zone: str = "") -> Markup:
    """Return an instant in UTC or, if ``zone`` is given, in that zone with its offset; ``-`` for None.

    In UTC, too, if the zone is unknown.
    """
    if at is None:
        return Markup("-")
    known = None
    with suppress(InvalidInputError):  # An unknown zone must not hide the page on which it can be changed.
        known = load_zone(zone) if zone else None
    if known is None:
        text = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    else:
        local = at.astimezone(known)
        text = f"{local:%Y-%m-%d %H:%M} {local.isoformat()[-6:]}"
    return Markup('<time datetime="{}">{}</time>').format(at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), text)


def duration(value: float | timedelta) -> str:
    """Return a duration, or a number of seconds, in the unit that fits: ``12 s``, ``6 min``, ``3.4 h``, ``5 days``."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


@pass_context
def name(context: Context, value: str | None) -> str:
    """Return a person's name; ``A…`` if the visitor may not see it."""
    return _shown(context, value, lambda text: f"{text[:1]}…")


@pass_context
def address(context: Context, value: str | None) -> str:
    """Return an e-mail address; ``a…@example.com`` if the visitor may not see it."""
    return _shown(context, value, lambda text: f"{text[:1]}…@{text.rpartition('@')[2]}")


@pass_context
def personal(context: Context, value: object) -> str:
    """Return anything else that belongs to a person; ``…`` if the visitor may not see it."""
    return _shown(context, value, lambda _: "…")


def _shown(context: Context, value: object, mask: Callable[[str], str]) -> str:
    if value is None or value == "":
        return "-"
    return str(value) if context["shows_persons"] else mask(str(value))


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    one.__name__: one for one in (number, counted, share, instant, duration, name, address, personal)
}
