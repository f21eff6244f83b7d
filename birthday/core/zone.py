"""Time zones: IANA names and fixed offsets, always from the pinned ``tzdata`` package.

The host's own zone files are not used, because two hosts with different files would compute different instants.
As a name, a fixed offset is written ``UTC+07:00``; as a number, it is in minutes east of UTC.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta, timezone, tzinfo
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import tzdata

from birthday.errors import FieldError, InvalidInputError

_FIXED = re.compile(r"UTC([+-])(\d\d):(\d\d)")

_LOOSE_OFFSET = re.compile(
    r"(?:UTC|GMT|Z)?\s*([+\-\N{MINUS SIGN}])\s*(\d{1,2})(?::?(\d\d))?(?:\s*(?:UTC|GMT))?", re.IGNORECASE | re.ASCII
)

OFFSETS_IN_USE = frozenset(
    [hour * 60 for hour in range(-12, 15)]
    + [-570, -270, -210, -150, 210, 270, 330, 345, 390, 510, 525, 570, 585, 630, 690, 765, 825]
)
"""Minutes east of UTC that some zone of the tz database has used since the year 2000, daylight saving included."""


@cache
def data_version() -> str:
    """Return the release of the time-zone data that instants are computed with, such as ``2026a``."""
    release: str = tzdata.IANA_VERSION
    return release


@cache
def zone_names() -> frozenset[str]:
    """Return every IANA name in ``tzdata`` except ``Factory``, which means "not set"."""
    return frozenset((files("tzdata") / "zones").read_text(encoding="utf-8").split()) - {"Factory"}


@cache
def load_zone(name: str) -> tzinfo:
    """Return the zone for an IANA name or a fixed offset such as ``UTC+07:00``.

    Raises:
        InvalidInputError: if ``name`` is neither; the text suggests names that look alike.
    """
    offset = fixed_offset(name)
    if offset is not None:
        check_offset(offset)
        return timezone(timedelta(minutes=offset), name)
    if name not in zone_names():
        raise InvalidInputError(FieldError("/timezone", _unknown_zone(name)))
    resource = files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with resource.open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def check_offset(minutes: int) -> None:
    """Refuse an offset that no zone uses, because most likely it was given in hours.

    Raises:
        InvalidInputError: naming the value, the unit and an example.
    """
    if minutes not in OFFSETS_IN_USE:
        detail = (
            f"{minutes} is not an offset that any time zone uses; timezoneOffset is in minutes east of UTC, "
            "from -720 to 840: 420 is UTC+07:00, -300 is UTC-05:00"
        )
        raise InvalidInputError(FieldError("/timezoneOffset", detail))


@lru_cache(maxsize=1024)
def fixed_zone_name(minutes: int) -> str:
    """Return the name of a fixed offset: ``UTC+07:00`` for 420, ``UTC+00:00`` for 0."""
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}"


@lru_cache(maxsize=1024)
def fixed_offset(name: str) -> int | None:
    """Return the minutes east of UTC of a fixed-offset name, or None for an IANA name.

    Each offset has one name, that of ``fixed_zone_name``. Other spellings (``UTC-00:00``, ``UTC+06:60``) give None.
    """
    fixed = _FIXED.fullmatch(name)
    if not fixed:
        return None
    sign, hours, minutes = fixed.groups()
    offset = int(f"{sign}{int(hours) * 60 + int(minutes)}")
    return offset if fixed_zone_name(offset) == name else None


@lru_cache(maxsize=1024)
def _unknown_zone(name: str) -> str:
    meant = _meant_offset(name)
    if meant is not None:
        return (
            f"'{name}' is not a time zone; an IANA name such as Europe/Berlin, Asia/Kolkata or UTC is accepted, or a "
            f"fixed offset; did you mean {meant}?"
        )
    alike = _alike(name)
    hint = f"; did you mean {' or '.join(alike)}?" if alike else ""
    return f"'{name}' is not a time zone; an IANA name such as Europe/Berlin, Asia/Kolkata or UTC is accepted{hint}"


def _alike(name: str) -> Sequence[str]:
    """Return up to three zones whose names look like ``name``: of the same city, or else of the same region.

    A name is compared with those of its region only: all would take milliseconds, for each row of an import.
    """
    region, rest = _split(name.strip().replace(" ", "_"))
    region_names = _names_by_region().get(region, {})
    if rest in region_names:
        return [region_names[rest]]
    city = rest.rpartition("/")[2]
    cities = sorted(zone for zone in zone_names() if zone.lower().endswith(f"/{city}"))
    return cities[:3] or [region_names[match] for match in get_close_matches(rest, region_names, n=3, cutoff=0.7)]


@cache
def _names_by_region() -> Mapping[str, Mapping[str, str]]:
    """Return all names by region and by what follows it, both in small letters."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(zone_names()):
        region, rest = _split(name)
        found.setdefault(region, {})[rest] = name
    return found


def _split(name: str) -> tuple[str, str]:
    """Return region and rest of a name in small letters; the region of a name such as ``UTC`` is empty."""
    region, slash, rest = name.lower().partition("/")
    return (region, rest) if slash else ("", region)


def _meant_offset(name: str) -> str | None:
    """Return the name of the fixed offset that ``GMT+2``, ``utc-5:30`` or ``+0200`` most likely mean: east is +.

    The IANA names that look similar, such as ``Etc/GMT+2``, have the opposite sign.
    """
    match = _LOOSE_OFFSET.fullmatch(name.strip())
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    offset = int(hours) * 60 + int(minutes or 0)
    offset = offset if sign == "+" else -offset
    return fixed_zone_name(offset) if int(minutes or 0) < 60 and offset in OFFSETS_IN_USE else None
