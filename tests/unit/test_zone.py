"""Time zones by name and by offset."""

import sys
from datetime import UTC, datetime, timedelta
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthday.core.zone import (
    OFFSETS_IN_USE,
    check_offset,
    fixed_offset,
    fixed_zone_name,
    load_zone,
    zone_names,
)
from birthday.errors import InvalidInputError

SUMMER = datetime(2026, 7, 1, tzinfo=UTC)


def offset_at(name: str, instant: datetime) -> timedelta | None:
    """Return a zone's offset at an instant."""
    return instant.astimezone(load_zone(name)).utcoffset()


def test_every_name_loads() -> None:
    """Every name that is offered can be used, and there are those of the whole database."""
    assert len(zone_names()) > 590
    assert all(offset_at(name, SUMMER) is not None for name in zone_names())


@pytest.mark.parametrize(
    ("name", "minutes"),
    [
        ("UTC", 0),
        ("Europe/Berlin", 120),
        ("Asia/Kolkata", 330),
        ("Asia/Calcutta", 330),
        ("Asia/Kathmandu", 345),
        ("Australia/Eucla", 525),
        ("Australia/Lord_Howe", 630),
        ("Pacific/Chatham", 765),
        ("Pacific/Kiritimati", 840),
        ("Pacific/Marquesas", -570),
        ("America/Argentina/Buenos_Aires", -180),
        ("America/North_Dakota/New_Salem", -300),
        ("Etc/GMT+12", -720),
        ("EST5EDT", -240),
        ("UTC+07:00", 420),
        ("UTC-09:30", -570),
        ("UTC+00:00", 0),
        ("UTC+14:00", 840),
        ("UTC-12:00", -720),
    ],
)
def test_offset_in_summer(name: str, minutes: int) -> None:
    """Names of two and three parts, links, old names and fixed offsets all mean what they say."""
    assert offset_at(name, SUMMER) == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "Factory",
        "Europe",
        "Mars/Olympus_Mons",
        "../../etc/passwd",
        "/etc/localtime",
        "Europe/../UTC",
        "zones",
        "utc\n",
        "UTC\x00",
        "UTC+7",
        "UTC+7:00",
        "UTC+0700",
        "UTC+06:60",
        "UTC-00:00",
        "UTC+07:00 ",
        "UTC+\u0660\u0667:\u0660\u0660",
        "GMT+07:00",
    ],
)
def test_unknown_name(name: str) -> None:
    """What is not exactly a name is refused, with the name and what is accepted."""
    with pytest.raises(InvalidInputError, match="is not a time zone; an IANA name such as Europe/Berlin") as raised:
        load_zone(name)

    [field] = raised.value.fields
    assert field.pointer == "/timezone"
    assert field.detail.startswith(f"'{name}' is not")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("Europe/Berln", "Europe/Berlin"),
        ("America/NewYork", "America/New_York"),
        ("Asia/Katmandou", "Asia/Katmandu"),
        ("utc", "UTC"),
        ("Berlin", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("america/New York", "America/New_York"),
        ("Euorpe/Berlin", "Europe/Berlin"),
        ("Signapore", "Singapore"),
        ("America/Argentina/Buenos_Aire", "America/Argentina/Buenos_Aires"),
    ],
)
def test_suggestion(name: str, meant: str) -> None:
    """A name with a slip of the pen is answered with the one that was meant."""
    with pytest.raises(InvalidInputError, match=f"did you mean .*{meant}"):
        load_zone(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GMT+2", "UTC+02:00"),
        ("UTC+2", "UTC+02:00"),
        ("utc-5", "UTC-05:00"),
        ("GMT-0330", "UTC-03:30"),
        ("UTC+5:45", "UTC+05:45"),
        ("+02:00", "UTC+02:00"),
        ("-0500", "UTC-05:00"),
        ("UTC \N{MINUS SIGN} 3", "UTC-03:00"),
        ("UTC-00:00", "UTC+00:00"),
    ],
)
def test_an_offset_is_answered_with_the_fixed_zone_of_the_same_side(name: str, meant: str) -> None:
    """East of Greenwich is +. Etc/GMT+2, which looks most like it, is on the other side of the world."""
    with pytest.raises(InvalidInputError) as raised:
        load_zone(name)

    assert f"did you mean {meant}?" in str(raised.value)
    assert "Etc/" not in str(raised.value)


def test_no_far_fetched_suggestion() -> None:
    """What looks like no name at all is answered without a suggestion."""
    with pytest.raises(InvalidInputError) as raised:
        load_zone("qqqqqqqq")

    assert "did you mean" not in str(raised.value)


@pytest.mark.parametrize("name", ["ada@example.com", "1990-12-10", "Europe/Paderborn", "crm-4711"])
def test_few_names_are_compared_for_a_suggestion(name: str) -> None:
    """If the columns of an import are shifted, each row has another text there, and other work waits meanwhile."""
    compared = 0

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal compared
        compared += event == "call" and frame.f_code.co_name == "set_seq1"

    sys.setprofile(count)
    try:
        with pytest.raises(InvalidInputError):
            load_zone(name)
    finally:
        sys.setprofile(None)
    assert compared < 100 < len(zone_names())


def test_offsets_in_use() -> None:
    """The offsets that are accepted are those that some zone has had since 2000, or will have until 2037; no others."""
    used = set()
    zones = [load_zone(name) for name in zone_names()]
    day = datetime(2000, 1, 1, tzinfo=UTC)
    while day.year < 2038:
        used |= {day.astimezone(zone).utcoffset() for zone in zones}
        day += timedelta(days=20)

    assert {timedelta(minutes=minutes) for minutes in OFFSETS_IN_USE} == used


@pytest.mark.parametrize("minutes", [7, -7, 1, 839, 841, -721, 1440, 25200])
def test_offset_that_no_zone_uses(minutes: int) -> None:
    """An offset that no zone uses is refused, with the unit and an example: hours, most likely, were meant."""
    with pytest.raises(InvalidInputError, match=f"timezoneOffset: {minutes} is not .* minutes .* 420 is UTC\\+07:00"):
        check_offset(minutes)
    with pytest.raises(InvalidInputError):
        load_zone(fixed_zone_name(minutes))


@pytest.mark.parametrize("minutes", sorted(OFFSETS_IN_USE))
def test_fixed_offset(minutes: int) -> None:
    """An offset survives being written as a name and read again, and its zone keeps it all year."""
    name = fixed_zone_name(minutes)

    assert fixed_offset(name) == minutes
    assert offset_at(name, SUMMER) == offset_at(name, datetime(2026, 1, 1, tzinfo=UTC)) == timedelta(minutes=minutes)
    assert str(load_zone(name)) == name


def test_names_are_no_offsets() -> None:
    """No IANA name is taken for a fixed offset, not even those that hold one."""
    assert {fixed_offset(name) for name in zone_names()} == {None}


@settings(deadline=None, derandomize=True)
@given(st.from_regex(r"UTC[+-]\d\d:\d\d", fullmatch=True))
def test_one_name_for_one_offset(name: str) -> None:
    """An offset has one name: whatever else looks like one is not read."""
    offset = fixed_offset(name)

    assert offset is None or fixed_zone_name(offset) == name
