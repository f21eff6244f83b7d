"""Reads what a visitor gives in the query of an address or in a form. What is wrong is named, with what is accepted."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar
from urllib.parse import urlencode

from birthday.core.dates import parse_date
from birthday.core.occasion import LAST_YEAR
from birthday.errors import FieldError, InvalidInputError

_Value = TypeVar("_Value")
_DAY = timedelta(days=1)
_MOST_CHARACTERS = 200
_FIRST_YEAR = 1900
"""Between this and LAST_YEAR, a day or an age more or less is still a date."""


def given_fields(given: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return those of the fields that are not empty.

    Raises:
        InvalidInputError: if one of them is longer than any value, or no line of text.
    """
    fields = {name: text for name in names if (text := given.get(name, "").strip())}
    for name, text in fields.items():
        if len(text) > _MOST_CHARACTERS or not text.isprintable():
            raise InvalidInputError(
                FieldError("", f"one line of up to {_MOST_CHARACTERS} characters is accepted", name)
            )
    return fields


def read(fields: Mapping[str, str], name: str, parse: Callable[[str], _Value], accepted: str) -> _Value | None:
    """Return the value of a field; None if it is not given.

    Raises:
        InvalidInputError: if ``parse`` raises a ``ValueError``; the text names the field, and what is ``accepted``.
    """
    text = fields.get(name)
    if text is None:
        return None
    try:
        return parse(text)
    except (ValueError, OverflowError):
        raise InvalidInputError(FieldError("", f"'{text}' is not accepted; {accepted}", name)) from None


def read_instant(fields: Mapping[str, str], name: str, *, is_end: bool = False) -> datetime | None:
    """Return an instant, in UTC unless it has an offset; a day is its first instant, or the end of it."""
    accepted = "a day such as 2026-03-01, or an instant such as 2026-03-01T09:00:00Z, is accepted"
    at = read(fields, name, _parse_instant, accepted)
    is_day = at is not None and len(fields[name]) == len("2026-03-01")
    return at + _DAY if at is not None and is_day and is_end else at


def read_day(fields: Mapping[str, str], name: str) -> date | None:
    """Return a day."""
    return read(fields, name, lambda text: _known(parse_date(text)), "a day such as 2026-03-01 is accepted")


def start_of(day: date) -> datetime:
    """Return the first instant of a day, UTC."""
    return datetime.combine(day, time(), UTC)


def address(path: str, fields: Mapping[str, str | None]) -> str:
    """Return an address of the console with those fields that have a value."""
    query = urlencode({name: text for name, text in fields.items() if text})
    return f"{path}?{query}" if query else path


def _parse_instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    _known(at.date())
    return at


def _known(day: date) -> date:
    if not _FIRST_YEAR <= day.year <= LAST_YEAR:
        raise ValueError(f"{day} is out of range")
    return day
