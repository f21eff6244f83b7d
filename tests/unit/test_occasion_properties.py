"""When a birthday is, in every zone there is: against an oracle, and as properties that always hold.

The oracle knows the time rules from one direction only, from UTC to local time, which is never ambiguous. It cuts
a zone's years into stretches of one offset each and looks a local time up in them. The code under test goes the
other way, by PEP 495.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import pairwise, takewhile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from birthday.core.occasion import (
    LeapDay,
    Rules,
    ZoneOccasion,
    birthday_in,
    birthdays,
    local_instant,
    month_days_on,
    next_occasion,
    occasion_on,
    zone_occasions,
)
from birthday.core.zone import OFFSETS_IN_USE, fixed_zone_name, load_zone, zone_names

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
FIRST_YEAR, LAST_YEAR = 2024, 2037
STEADY = settings(deadline=None, derandomize=True, max_examples=300)
AWKWARD_TIMES = [time(0), time(0, 30), time(1, 30), time(2), time(2, 15), time(2, 30), time(23, 30), time(23, 59, 59)]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time, in UTC without saying so, during which a zone's offset stays the same."""

    begins: datetime
    ends: datetime
    offset: timedelta


def stretches_of(zone: tzinfo) -> tuple[Stretch, ...]:
    """Return the stretches that cover the years of the test, with a few days more at both ends.

    A zone that changed twice within one week would be cut wrongly, and be reported by ``test_nine_o_clock``.
    """

    def offset_at(instant: datetime) -> timedelta:
        return instant.astimezone(zone).utcoffset() or timedelta()

    cuts = [datetime(FIRST_YEAR - 1, 12, 25, tzinfo=UTC)]
    offsets = [offset_at(cuts[0])]
    day = cuts[0]
    while day.year <= LAST_YEAR:
        before, day = day, day + 7 * DAY
        if offset_at(day) != offsets[-1]:
            after = day
            while after - before > SECOND:
                middle = before + (after - before) // 2 // SECOND * SECOND
                before, after = (middle, after) if offset_at(middle) == offsets[-1] else (before, middle)
            cuts.append(after)
            offsets.append(offset_at(after))
    bounds = pairwise(cut.replace(tzinfo=None) for cut in [*cuts, day + 7 * DAY])
    return tuple(Stretch(begins, ends, offset) for (begins, ends), offset in zip(bounds, offsets, strict=True))


def expected_instant(stretches: tuple[Stretch, ...], wall: datetime) -> datetime:
    """Return the first instant at which the clock shows ``wall``, or at which it first shows something later."""
    shown = [wall - each.offset for each in stretches if each.begins <= wall - each.offset < each.ends]
    return min(shown, default=None) or next(each.begins for each in stretches if each.begins + each.offset > wall)


def dates(first: date, last: date) -> Iterator[date]:
    """Yield every date from ``first`` to ``last``."""
    return (first + DAY * number for number in range((last - first).days + 1))


@pytest.fixture(scope="module")
def zones() -> dict[tuple[Stretch, ...], tzinfo]:
    """One zone for each way in which clocks run from 2024 to 2037: all names boil down to them."""
    return {stretches_of(zone): zone for zone in map(load_zone, sorted(zone_names()))}


class TestEveryZone:
    """Every IANA zone, 2024 to 2037."""

    def test_nine_o_clock(self, zones: dict[tuple[Stretch, ...], tzinfo]) -> None:
        """On every date in every zone, 09:00 is 09:00 there: no clock change touches it."""
        days = list(dates(date(FIRST_YEAR, 1, 1), date(LAST_YEAR, 12, 31)))
        for stretches, zone in zones.items():
            ahead = iter(stretches)
            stretch = next(ahead)
            for day in days:
                wall = datetime.combine(day, time(9))
                while wall - stretch.offset >= stretch.ends:
                    stretch = next(ahead)
                due_at = local_instant(zone, day, time(9))
                assert due_at.replace(tzinfo=None) == wall - stretch.offset, (zone, day)
                assert due_at.astimezone(zone).replace(tzinfo=None, fold=0) == wall, (zone, day)

    @pytest.mark.parametrize("send_at", AWKWARD_TIMES, ids=str)
    def test_around_clock_changes(self, zones: dict[tuple[Stretch, ...], tzinfo], send_at: time) -> None:
        """Around every clock change, an awkward time is the first instant that shows it, or else the first after it."""
        gaps = 0
        for stretches, zone in zones.items():
            for change in stretches[1:]:
                nearby = (change.begins + change.offset).date()
                for day in dates(nearby - 2 * DAY, nearby + 2 * DAY):
                    wall = datetime.combine(day, send_at)
                    occasion = occasion_on(zone, day, send_at)
                    assert occasion.due_at.replace(tzinfo=None) == expected_instant(stretches, wall), (zone, day)
                    shown = occasion.due_at.astimezone(zone).replace(tzinfo=None, fold=0)
                    gaps += shown != wall
                    assert shown >= wall, (zone, day)
                    assert occasion.on == shown.date(), (zone, day)

        assert gaps > 0

    @pytest.mark.parametrize("send_at", AWKWARD_TIMES, ids=str)
    def test_end_of_date(self, zones: dict[tuple[Stretch, ...], tzinfo], send_at: time) -> None:
        """Around every clock change, an occasion ends after it is due, and when its date is over for good."""
        for stretches, zone in zones.items():
            for change in stretches[1:]:
                nearby = (change.begins + change.offset).date()
                for day in dates(nearby - 2 * DAY, nearby + 2 * DAY):
                    occasion = occasion_on(zone, day, send_at)
                    next_day = datetime.combine(occasion.on + DAY, time())
                    ends_at = occasion.ends_at.replace(tzinfo=None)
                    assert occasion.due_at < occasion.ends_at, (zone, day)
                    last_of_date = max(
                        min(each.ends, next_day - each.offset)
                        for each in stretches
                        if each.begins + each.offset < next_day and each.ends + each.offset > next_day - DAY
                    )
                    assert ends_at == last_of_date, (zone, day)


ZONES = st.sampled_from(sorted(zone_names()) + [fixed_zone_name(minutes) for minutes in sorted(OFFSETS_IN_USE)])
INSTANTS = st.datetimes(
    datetime(FIRST_YEAR, 1, 1),  # noqa: DTZ001 - Hypothesis wants bounds without a zone.
    datetime(LAST_YEAR, 12, 1),  # noqa: DTZ001 - As above.
    timezones=st.just(UTC),
)
WIDTHS = st.timedeltas(timedelta(), timedelta(days=10))
RULES = st.builds(
    Rules,
    send_at=st.sampled_from(AWKWARD_TIMES) | st.times(timezones=st.none()).map(lambda at: at.replace(microsecond=0)),
    leap_day=st.sampled_from(LeapDay),
)
BIRTH_DATES = st.dates(date(1900, 1, 1), date(2036, 12, 31)) | st.sampled_from(
    [date(1992, 2, 29), date(2024, 2, 29), date(1990, 2, 28), date(1990, 3, 1), date(1990, 1, 1), date(1990, 12, 31)]
)


class TestWindows:
    """What the planner asks of one zone."""

    @STEADY
    @given(zone=ZONES, after=INSTANTS, widths=st.lists(WIDTHS, min_size=2, max_size=4), rules=RULES)
    def test_partition(self, zone: str, after: datetime, widths: list[timedelta], rules: Rules) -> None:
        """Windows that follow each other find what one window over all of them finds: no overlap, no hole."""
        edges = [after]
        for width in widths:
            edges.append(edges[-1] + width)

        pieces = [found for earlier, later in pairwise(edges) for found in zone_occasions(zone, earlier, later, rules)]

        assert pieces == zone_occasions(zone, edges[0], edges[-1], rules)

    @STEADY
    @given(zone=ZONES, after=INSTANTS, width=WIDTHS, rules=RULES)
    def test_every_date(self, zone: str, after: datetime, width: timedelta, rules: Rules) -> None:
        """A window finds exactly those dates whose instant lies in it, in order of time."""
        around = dates(after.date() - 4 * DAY, (after + width).date() + 4 * DAY)
        expected = [
            ZoneOccasion(zone, month_days_on(day, rules.leap_day), occasion_on(load_zone(zone), day, rules.send_at))
            for day in around
            if after < local_instant(load_zone(zone), day, rules.send_at) <= after + width
        ]

        found = zone_occasions(zone, after, after + width, rules)

        assert found == expected
        assert [each.occasion.due_at for each in found] == sorted(each.occasion.due_at for each in found)

    @STEADY
    @given(
        born=BIRTH_DATES, zone=ZONES, rules=RULES, shift=st.integers(-3, 3), width=WIDTHS, year=st.integers(2025, 2036)
    )
    def test_agrees_with_person(
        self, born: date, zone: str, rules: Rules, shift: int, width: timedelta, year: int
    ) -> None:
        """For one person, what the planner finds by zone and date is what their own birthdays are."""
        assume(born.year < year)
        after = datetime.combine(birthday_in(born, year, rules.leap_day) + shift * DAY, time(), UTC) - width / 2
        own = takewhile(
            lambda each: each.due_at <= after + width, birthdays(born, load_zone(zone), rules, after.year - 1)
        )

        found = zone_occasions(zone, after, after + width, rules)

        assert [each.occasion for each in found if born.month * 100 + born.day in each.month_days] == [
            each for each in own if each.due_at > after
        ]

    @pytest.mark.parametrize("leap_day", LeapDay)
    @pytest.mark.parametrize("year", [2027, 2028, 2096, 2100])
    def test_month_days(self, year: int, leap_day: LeapDay) -> None:
        """Everybody has one birthday a year: dates found by person and persons found by date are the same pairs."""
        births = list(dates(date(1992, 1, 1), date(1992, 12, 31)))
        by_person = {(born.month * 100 + born.day, birthday_in(born, year, leap_day)) for born in births}
        by_date = [
            (month_day, day)
            for day in dates(date(year, 1, 1), date(year, 12, 31))
            for month_day in month_days_on(day, leap_day)
        ]

        assert len(births) == len(by_date) == 366
        assert set(by_date) == by_person


class TestPersons:
    """One person's birthdays."""

    @STEADY
    @given(born=BIRTH_DATES, zone=ZONES, rules=RULES, known_since=INSTANTS)
    def test_due_in_time(self, born: date, zone: str, rules: Rules, known_since: datetime) -> None:
        """The next birthday is due now or later, not before its time, and before it is over; none is passed over."""
        loaded = load_zone(zone)
        found = next_occasion(born, loaded, rules, known_since)

        assert found is not None
        assert max(found.due_at, known_since) == found.due_for(known_since) < found.ends_at
        assert found.year > born.year
        earlier = takewhile(lambda each: each != found, birthdays(born, loaded, rules, known_since.year - 2))
        assert all(each.is_over(known_since) for each in earlier)

    @STEADY
    @given(born=BIRTH_DATES, zone=ZONES, rules=RULES, year=st.integers(2024, 2036))
    def test_one_a_year(self, born: date, zone: str, rules: Rules, year: int) -> None:
        """There is one birthday for each year, and the next one is not due before the one before it is over."""
        found = list(takewhile(lambda each: each.year <= 2037, birthdays(born, load_zone(zone), rules, year)))

        assert [each.year for each in found] == list(range(max(year, born.year + 1), 2038))
        assert all(earlier.ends_at < later.due_at for earlier, later in pairwise(found))

    @STEADY
    @given(
        born=BIRTH_DATES, zone=ZONES, rules=RULES, known_since=INSTANTS, taken=st.frozensets(st.integers(2024, 2037))
    )
    def test_taken_years(
        self, born: date, zone: str, rules: Rules, known_since: datetime, taken: frozenset[int]
    ) -> None:
        """A year that is taken is never given again, and every free one is."""
        found = next_occasion(born, load_zone(zone), rules, known_since, taken)
        free = next_occasion(born, load_zone(zone), rules, known_since)

        assert found is not None
        assert free is not None
        assert found.year not in taken
        assert set(range(free.year, found.year)) <= taken
