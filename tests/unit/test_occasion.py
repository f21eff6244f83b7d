"""When a birthday is: every case of the design, section 5, by hand."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from itertools import islice

import pytest

from birthday.core.occasion import (
    LAST_YEAR,
    LeapDay,
    Occasion,
    Rules,
    birthday_in,
    birthdays,
    birthdays_from,
    local_instant,
    month_days_on,
    next_occasion,
    occasion_on,
    zone_occasions,
)
from birthday.core.zone import load_zone

NINE = time(9)
LEAPLING = date(1992, 2, 29)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def utc(text: str) -> datetime:
    """Return the UTC instant that ``2026-03-01 09:00`` writes."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def due(zone: str, day: str, send_at: str = "09:00") -> datetime:
    """Return when the birthday with this nominal date is due."""
    return occasion_on(load_zone(zone), date.fromisoformat(day), time.fromisoformat(send_at)).due_at


class TestLeapDay:
    """29 February, in years that have none."""

    @pytest.mark.parametrize(
        ("year", "feb28", "mar1"),
        [
            (2027, date(2027, 2, 28), date(2027, 3, 1)),
            (2028, date(2028, 2, 29), date(2028, 2, 29)),
            (2096, date(2096, 2, 29), date(2096, 2, 29)),
            (2100, date(2100, 2, 28), date(2100, 3, 1)),
            (2000, date(2000, 2, 29), date(2000, 2, 29)),
        ],
    )
    def test_date(self, year: int, feb28: date, mar1: date) -> None:
        """It is the day that was chosen, and in leap years the day itself; 2100 is none."""
        assert birthday_in(LEAPLING, year, LeapDay.FEB28) == feb28
        assert birthday_in(LEAPLING, year, LeapDay.MAR1) == mar1

    @pytest.mark.parametrize("day", [date(1990, 2, 28), date(1990, 3, 1), date(1990, 12, 31)])
    @pytest.mark.parametrize("year", [2027, 2028])
    def test_others(self, day: date, year: int) -> None:
        """The neighbours' birthdays stay where they are."""
        assert {birthday_in(day, year, policy) for policy in LeapDay} == {day.replace(year=year)}

    @pytest.mark.parametrize(
        ("day", "feb28", "mar1"),
        [
            (date(2027, 2, 27), (227,), (227,)),
            (date(2027, 2, 28), (228, 229), (228,)),
            (date(2027, 3, 1), (301,), (301, 229)),
            (date(2028, 2, 28), (228,), (228,)),
            (date(2028, 2, 29), (229,), (229,)),
            (date(2028, 3, 1), (301,), (301,)),
            (date(2100, 2, 28), (228, 229), (228,)),
            (date(2100, 3, 1), (301,), (301, 229)),
            (date(2027, 12, 31), (1231,), (1231,)),
        ],
    )
    def test_whose_day_it_is(self, day: date, feb28: tuple[int, ...], mar1: tuple[int, ...]) -> None:
        """The planner finds those born on 29 February with those of the day that stands in for it."""
        assert month_days_on(day, LeapDay.FEB28) == feb28
        assert month_days_on(day, LeapDay.MAR1) == mar1


class TestOffset:
    """Nine o'clock in zones of every kind."""

    @pytest.mark.parametrize(
        ("zone", "day", "instant"),
        [
            ("UTC", "2026-06-15", "2026-06-15 09:00"),
            ("America/New_York", "2026-01-15", "2026-01-15 14:00"),
            ("America/New_York", "2026-07-15", "2026-07-15 13:00"),
            ("Europe/Berlin", "2026-01-15", "2026-01-15 08:00"),
            ("Europe/Berlin", "2026-07-15", "2026-07-15 07:00"),
            ("Asia/Kolkata", "2026-06-15", "2026-06-15 03:30"),
            ("Asia/Kathmandu", "2026-06-15", "2026-06-15 03:15"),
            ("Australia/Eucla", "2026-06-15", "2026-06-15 00:15"),
            ("Australia/Lord_Howe", "2026-01-15", "2026-01-14 22:00"),
            ("Australia/Lord_Howe", "2026-07-15", "2026-07-14 22:30"),
            ("Pacific/Chatham", "2026-01-15", "2026-01-14 19:15"),
            ("Pacific/Chatham", "2026-07-15", "2026-07-14 20:15"),
            ("Pacific/Marquesas", "2026-06-15", "2026-06-15 18:30"),
            ("Pacific/Kiritimati", "2026-06-15", "2026-06-14 19:00"),
            ("Etc/GMT+12", "2026-06-15", "2026-06-15 21:00"),
            ("UTC+07:00", "2026-06-15", "2026-06-15 02:00"),
            ("UTC-09:30", "2026-06-15", "2026-06-15 18:30"),
            ("UTC+14:00", "2026-06-15", "2026-06-14 19:00"),
        ],
    )
    def test_nine_o_clock(self, zone: str, day: str, instant: str) -> None:
        """It is nine where the user lives."""
        assert due(zone, day) == utc(instant)

    @pytest.mark.parametrize(
        ("zone", "day", "instant", "ends"),
        [
            ("Pacific/Kiritimati", "2027-01-01", "2026-12-31 19:00", "2027-01-01 10:00"),
            ("Etc/GMT+12", "2026-12-31", "2026-12-31 21:00", "2027-01-01 12:00"),
            ("Pacific/Auckland", "2028-02-29", "2028-02-28 20:00", "2028-02-29 11:00"),
        ],
    )
    def test_turn_of_year(self, zone: str, day: str, instant: str, ends: str) -> None:
        """Year and date are the user's, whatever they are in UTC by then."""
        nominal = date.fromisoformat(day)

        assert occasion_on(load_zone(zone), nominal, NINE) == Occasion(nominal.year, nominal, utc(instant), utc(ends))


class TestGap:
    """A local time that the clock skips: the first instant after the gap."""

    @pytest.mark.parametrize(
        ("zone", "day", "send_at", "instant"),
        [
            ("Africa/Cairo", "2026-04-24", "00:00", "2026-04-23 22:00"),
            ("Africa/Cairo", "2026-04-24", "00:59:59", "2026-04-23 22:00"),
            ("Asia/Beirut", "2026-03-29", "00:00", "2026-03-28 22:00"),
            ("America/Havana", "2026-03-08", "00:00", "2026-03-08 05:00"),
            ("America/Santiago", "2026-09-06", "00:00", "2026-09-06 04:00"),
            ("Atlantic/Azores", "2026-03-29", "00:00", "2026-03-29 01:00"),
            ("Europe/Berlin", "2026-03-29", "02:00", "2026-03-29 01:00"),
            ("Europe/Berlin", "2026-03-29", "02:15", "2026-03-29 01:00"),
            ("Europe/Berlin", "2026-03-29", "02:59:59", "2026-03-29 01:00"),
            ("Europe/London", "2026-03-29", "01:30", "2026-03-29 01:00"),
            ("America/New_York", "2026-03-08", "02:30", "2026-03-08 07:00"),
            ("Australia/Lord_Howe", "2026-10-04", "02:15", "2026-10-03 15:30"),
            ("Pacific/Chatham", "2026-09-27", "02:45", "2026-09-26 14:00"),
            ("Antarctica/Troll", "2026-03-29", "01:30", "2026-03-29 01:00"),
            ("Antarctica/Troll", "2026-03-29", "02:30", "2026-03-29 01:00"),
        ],
    )
    def test_first_instant_after(self, zone: str, day: str, send_at: str, instant: str) -> None:
        """Anywhere in the gap, it is due as soon as the gap is over, and still on that date."""
        occasion = occasion_on(load_zone(zone), date.fromisoformat(day), time.fromisoformat(send_at))

        assert (occasion.due_at, occasion.on) == (utc(instant), date.fromisoformat(day))

    @pytest.mark.parametrize(
        ("zone", "day", "send_at", "instant"),
        [
            ("Africa/Cairo", "2026-04-24", "01:00", "2026-04-23 22:00"),
            ("Europe/Berlin", "2026-03-29", "01:59:59", "2026-03-29 00:59:59"),
            ("Europe/Berlin", "2026-03-29", "03:00", "2026-03-29 01:00"),
            ("Australia/Lord_Howe", "2026-10-04", "02:30", "2026-10-03 15:30"),
        ],
    )
    def test_edges(self, zone: str, day: str, send_at: str, instant: str) -> None:
        """The last second before a gap and the first one after it are ordinary times."""
        assert due(zone, day, send_at) == utc(instant)

    def test_evening(self) -> None:
        """Where the last hour of a date is skipped, the first instant after the gap is on the next date."""
        occasion = occasion_on(load_zone("America/Nuuk"), date(2026, 3, 28), time(23, 30))

        assert occasion == Occasion(2026, date(2026, 3, 29), utc("2026-03-29 01:00"), utc("2026-03-30 01:00"))

    def test_evening_before(self) -> None:
        """A date whose last hour is skipped ends where the gap begins."""
        assert occasion_on(load_zone("America/Nuuk"), date(2026, 3, 28), NINE).ends_at == utc("2026-03-29 01:00")


class TestFold:
    """A local time that occurs twice: the first."""

    @pytest.mark.parametrize(
        ("zone", "day", "send_at", "instant"),
        [
            ("America/Havana", "2026-11-01", "00:00", "2026-11-01 04:00"),
            ("Atlantic/Azores", "2026-10-25", "00:00", "2026-10-25 00:00"),
            ("America/New_York", "2026-11-01", "01:30", "2026-11-01 05:30"),
            ("Europe/Berlin", "2026-10-25", "02:15", "2026-10-25 00:15"),
            ("Europe/Berlin", "2026-10-25", "02:30", "2026-10-25 00:30"),
            ("Australia/Lord_Howe", "2026-04-05", "01:45", "2026-04-04 14:45"),
            ("Africa/Cairo", "2026-10-29", "23:30", "2026-10-29 20:30"),
            ("Asia/Beirut", "2026-10-24", "23:30", "2026-10-24 20:30"),
            ("America/Santiago", "2026-04-04", "23:30", "2026-04-05 02:30"),
            ("Antarctica/Troll", "2026-10-25", "01:30", "2026-10-24 23:30"),
        ],
    )
    def test_first(self, zone: str, day: str, send_at: str, instant: str) -> None:
        """It is due the first time that the clock shows it."""
        assert due(zone, day, send_at) == utc(instant)

    @pytest.mark.parametrize(
        ("zone", "day", "instant"),
        [
            ("Africa/Cairo", "2026-10-30", "2026-10-29 22:00"),
            ("Asia/Beirut", "2026-10-25", "2026-10-24 22:00"),
            ("America/Santiago", "2026-04-05", "2026-04-05 04:00"),
        ],
    )
    def test_midnight_after(self, zone: str, day: str, instant: str) -> None:
        """Where the last hour of a date occurs twice, the next date begins when both are over."""
        assert due(zone, day, "00:00") == utc(instant)


class TestMissingDate:
    """A local date that the zone skipped: the next one that exists, at the same time."""

    @pytest.mark.parametrize(
        ("zone", "day", "on", "instant", "ends"),
        [
            ("Pacific/Apia", "2011-12-30", "2011-12-31", "2011-12-30 19:00", "2011-12-31 10:00"),
            ("Pacific/Fakaofo", "2011-12-30", "2011-12-31", "2011-12-30 20:00", "2011-12-31 11:00"),
            ("Pacific/Kwajalein", "1993-08-21", "1993-08-22", "1993-08-21 21:00", "1993-08-22 12:00"),
            ("Pacific/Kanton", "1994-12-31", "1995-01-01", "1994-12-31 20:00", "1995-01-01 11:00"),
            ("Pacific/Kiritimati", "1994-12-31", "1995-01-01", "1994-12-31 19:00", "1995-01-01 10:00"),
        ],
    )
    def test_next_date(self, zone: str, day: str, on: str, instant: str, ends: str) -> None:
        """It is greeted on the next date, and counts for the year that it was of."""
        nominal = date.fromisoformat(day)

        assert occasion_on(load_zone(zone), nominal, NINE) == Occasion(
            nominal.year, date.fromisoformat(on), utc(instant), utc(ends)
        )

    @pytest.mark.parametrize("send_at", ["00:00", "00:30", "12:00", "23:59"])
    def test_same_time(self, send_at: str) -> None:
        """Whatever the time of day is, it stays."""
        zone = load_zone("Pacific/Apia")

        assert occasion_on(zone, date(2011, 12, 30), time.fromisoformat(send_at)) == Occasion(
            2011, date(2011, 12, 31), due("Pacific/Apia", "2011-12-31", send_at), utc("2011-12-31 10:00")
        )

    def test_day_before(self) -> None:
        """The date before a missing one ends where the missing one would have begun."""
        occasion = occasion_on(load_zone("Pacific/Apia"), date(2011, 12, 29), NINE)

        assert (occasion.due_at, occasion.ends_at) == (utc("2011-12-29 19:00"), utc("2011-12-30 10:00"))

    def test_planned_with_the_next(self) -> None:
        """The planner finds those of the missing date beside those of the next one, at the same instant."""
        found = zone_occasions("Pacific/Apia", utc("2011-12-29 20:00"), utc("2011-12-30 19:00"), Rules())

        assert [(each.month_days, each.occasion.due_at) for each in found] == [
            ((1230,), utc("2011-12-30 19:00")),
            ((1231,), utc("2011-12-30 19:00")),
        ]


class TestLateKnowledge:
    """Somebody who is created, or changed, on the birthday."""

    occasion = Occasion(2026, date(2026, 6, 15), utc("2026-06-15 07:00"), utc("2026-06-15 22:00"))

    @pytest.mark.parametrize(
        ("known_since", "due_at"),
        [
            ("2020-01-01 00:00", "2026-06-15 07:00"),
            ("2026-06-15 06:59:59", "2026-06-15 07:00"),
            ("2026-06-15 07:00", "2026-06-15 07:00"),
            ("2026-06-15 07:00:01", "2026-06-15 07:00:01"),
            ("2026-06-15 21:59:59", "2026-06-15 21:59:59"),
        ],
    )
    def test_still_that_date(self, known_since: str, due_at: str) -> None:
        """Before the time of day it is due at that time; after it, at once."""
        assert self.occasion.due_for(utc(known_since)) == utc(due_at)
        assert not self.occasion.is_over(utc(known_since))

    @pytest.mark.parametrize("known_since", ["2026-06-15 22:00", "2026-06-16 07:00", "2030-01-01 00:00"])
    def test_over(self, known_since: str) -> None:
        """Once the date is over there, that birthday is not greeted any more."""
        assert self.occasion.is_over(utc(known_since))


class TestBirthdays:
    """One person's birthdays, one after the other."""

    def test_not_the_day_of_birth(self) -> None:
        """The first birthday is a year after birth, however early one asks."""
        first = next(birthdays(date(2024, 5, 17), UTC, Rules(), 1900))

        assert (first.year, first.on) == (2025, date(2025, 5, 17))

    def test_first_year(self) -> None:
        """They begin with the year that was asked for, one each."""
        found = islice(birthdays(LEAPLING, UTC, Rules(), 2026), 4)

        assert [occasion.on for occasion in found] == [
            date(2026, 2, 28),
            date(2027, 2, 28),
            date(2028, 2, 29),
            date(2029, 2, 28),
        ]

    def test_end_of_calendar(self) -> None:
        """They end where the calendar does, without an error, east and west."""
        for offset in (-12, 14):
            zone = timezone(timedelta(hours=offset))
            assert [each.year for each in birthdays(date(1990, 12, 31), zone, Rules(), LAST_YEAR - 1)] == [
                LAST_YEAR - 1,
                LAST_YEAR,
            ]

    @pytest.mark.parametrize(
        ("day", "first"),
        [(date(2026, 5, 16), 2026), (date(2026, 5, 17), 2026), (date(2026, 5, 18), 2027), (date(2026, 1, 1), 2026)],
    )
    def test_from(self, day: date, first: int) -> None:
        """From a date on, that date included."""
        assert next(birthdays_from(date(1990, 5, 17), load_zone("Asia/Tokyo"), Rules(), day)).year == first

    def test_from_after_missing_date(self) -> None:
        """One that moved over the turn of the year is still found on the date to which it moved."""
        found = birthdays_from(date(1990, 12, 31), load_zone("Pacific/Kiritimati"), Rules(), date(1995, 1, 1))

        assert [(each.year, each.on) for each in islice(found, 2)] == [
            (1994, date(1995, 1, 1)),
            (1995, date(1995, 12, 31)),
        ]


class TestNext:
    """The next birthday of one person."""

    born = date(1990, 6, 15)
    zone = load_zone("Europe/Berlin")

    @pytest.mark.parametrize(
        ("known_since", "year"),
        [
            ("2026-01-01 00:00", 2026),
            ("2026-06-15 07:00", 2026),
            ("2026-06-15 21:59:59", 2026),
            ("2026-06-15 22:00", 2027),
            ("2026-12-31 23:59", 2027),
        ],
    )
    def test_until_it_is_over(self, known_since: str, year: int) -> None:
        """It is this year's until that date is over there."""
        found = next_occasion(self.born, self.zone, Rules(), utc(known_since))

        assert found is not None
        assert found.year == year

    def test_taken(self) -> None:
        """A year that has its message already is passed over."""
        found = next_occasion(self.born, self.zone, Rules(), utc("2026-01-01 00:00"), frozenset({2026, 2027}))

        assert found is not None
        assert found.year == 2028

    @pytest.mark.parametrize(
        ("zone", "born", "known_since", "year"),
        [
            ("Pacific/Kiritimati", date(1990, 1, 1), "2026-12-31 12:00", 2027),
            ("Etc/GMT+12", date(1990, 12, 31), "2027-01-01 11:59", 2026),
            ("Etc/GMT+12", date(1990, 12, 31), "2027-01-01 12:00", 2027),
        ],
    )
    def test_turn_of_year(self, zone: str, born: date, known_since: str, year: int) -> None:
        """The year there decides, before UTC's has begun and after it has ended."""
        found = next_occasion(born, load_zone(zone), Rules(), utc(known_since))

        assert found is not None
        assert found.year == year

    def test_end_of_calendar(self) -> None:
        """At the end of the calendar there is no next one."""
        assert next_occasion(self.born, self.zone, Rules(), datetime(LAST_YEAR, 12, 31, tzinfo=UTC)) is None


class TestZoneOccasions:
    """What the planner asks: everybody's birthdays of one zone in one window."""

    def test_day(self) -> None:
        """A window of a day holds one occasion, with the people it concerns."""
        [found] = zone_occasions("Europe/Berlin", utc("2026-02-27 12:00"), utc("2026-02-28 12:00"), Rules())

        assert (found.zone, found.month_days) == ("Europe/Berlin", (228, 229))
        assert found.occasion == occasion_on(load_zone("Europe/Berlin"), date(2026, 2, 28), NINE)

    def test_edges(self) -> None:
        """A window begins after its first instant and holds its last."""
        nine = utc("2026-06-15 07:00")
        second = timedelta(seconds=1)

        assert zone_occasions("Europe/Berlin", nine, nine + second, Rules()) == []
        assert len(zone_occasions("Europe/Berlin", nine - second, nine, Rules())) == 1
        assert zone_occasions("Europe/Berlin", nine, nine, Rules()) == []

    @pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12", "UTC", "America/Nuuk", "UTC+14:00"])
    @pytest.mark.parametrize("send_at", [time(0), time(9), time(23, 59, 59)])
    def test_whole_year(self, zone: str, send_at: time) -> None:
        """A year has each of its dates once, in order of time, whatever zone and time of day."""
        found = zone_occasions(zone, utc("2025-12-31 00:00"), utc("2027-01-02 00:00"), Rules(send_at))
        instants = [each.occasion.due_at for each in found]

        days_of_2026 = [each.month_days[0] for each in found if each.occasion.year == 2026]
        assert len(days_of_2026) == len(set(days_of_2026)) == 365
        assert instants == sorted(instants)

    def test_no_leapling_twice(self) -> None:
        """In a leap year nobody born on 29 February is found on a day that stands in for it."""
        for policy in LeapDay:
            found = zone_occasions("UTC", utc("2028-02-27 00:00"), utc("2028-03-02 00:00"), Rules(NINE, policy))
            assert [each.month_days for each in found] == [(227,), (228,), (229,), (301,)]


def test_local_instant_is_utc() -> None:
    """Instants are aware and in UTC, whatever the zone is."""
    for zone in (load_zone("Asia/Tokyo"), load_zone("UTC+07:00")):
        assert local_instant(zone, date(2026, 1, 1), NINE).tzinfo is UTC
