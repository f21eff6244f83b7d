"""Dates of birth and other yearly dates as text, and how many years have passed since one.

A birthday whose year is not known is written ``--02-29`` (RFC 6350). It is stored in the year 4, which is a leap year
and long before any date that is accepted with its year.
"""

import re
from datetime import date
from typing import Final

UNKNOWN_YEAR: Final = 4

_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)([Tt ]([01]\d|2[0-3]):[0-5]\d(:([0-5]\d|60)(\.\d+)?)?([Zz]|[+-]([01]\d|2[0-3]):?[0-5]\d)?)?",
    re.ASCII,
)
_WITHOUT_YEAR = re.compile(r"--\d\d-\d\d", re.ASCII)


def parse_date(value: object) -> date:
    """Return the date that is written in a date or date-time; the zone of a date-time is ignored."""
    match = _DATE_TIME.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError("is not a date; YYYY-MM-DD is accepted, or a date-time that starts with one")
    try:
        return date.fromisoformat(match[1])
    except ValueError as error:
        raise ValueError(f"is not a date of the calendar: {error}; YYYY-MM-DD is accepted") from None


def parse_birthday(value: object) -> date:
    """Return a date of birth as it is stored: as ``parse_date``, or the birthday alone, such as ``--02-29``."""
    if isinstance(value, str) and _WITHOUT_YEAR.fullmatch(value):
        try:
            return date.fromisoformat(f"{UNKNOWN_YEAR:04}{value[1:]}")
        except ValueError:
            raise ValueError("is not a day of the calendar; --MM-DD is accepted") from None
    try:
        born = parse_date(value)
    except ValueError as error:
        raise ValueError(f"{error}; --MM-DD is accepted if the year is not known") from None
    if born.year == UNKNOWN_YEAR:
        raise ValueError("is not a date of birth; --MM-DD is accepted if the year is not known")
    return born


def parse_month_day(text: str) -> int:
    """Return ``month * 100 + day`` of a day that is written ``02-29`` or ``--02-29``."""
    try:
        day = parse_birthday(f"--{text.removeprefix('--')}")
    except ValueError:
        raise ValueError("a day of the calendar is accepted: MM-DD or --MM-DD, such as 02-29") from None
    return day.month * 100 + day.day


def birthday_text(born: date) -> str:
    """Return a stored date of birth as text: the inverse of ``parse_birthday``."""
    return f"--{born:%m-%d}" if born.year == UNKNOWN_YEAR else born.isoformat()


def years_since(day: date, year: int) -> int | None:
    """Return how many years after ``day`` the occasion of ``year`` is; None if the year of a birth is not known."""
    return None if day.year == UNKNOWN_YEAR else year - day.year
