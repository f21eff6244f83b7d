"""When is a birthday, or another yearly date? Pure functions from a date and a zone to instants (design, section 5).

An occasion is one birthday of one person, or of everybody who shares zone and date. The rules are those of every type:
what is said of a birthday and a date of birth holds for an anniversary and its date. It is *due* at the local time of
day ``send_at`` and *ends* when the local date does. Instants are aware UTC, dates are local.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache

from birthday.core.zone import load_zone

_DAY = timedelta(days=1)
_WIDEST_OFFSET = timedelta(hours=26)
_LONGEST_WAY_TO_END = timedelta(days=4)
"""From the nominal date to the end of its occasion: a skipped date, the day itself, the widest offset, and a gap."""
LEAP_MONTH_DAY = 229
LAST_YEAR = date.max.year - 1


class LeapDay(StrEnum):
    """Where a birthday on 29 February falls in a year that has none."""

    FEB28 = "feb28"
    MAR1 = "mar1"


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation decides about birthdays: the local time of day, and the leap-day policy."""

    send_at: time = time(9)
    leap_day: LeapDay = LeapDay.FEB28


@dataclass(frozen=True, slots=True)
class Occasion:
    """One birthday.

    ``year`` is the calendar year that it counts for; ``on`` is the local date on which it is greeted, which differs
    from the nominal one only where a zone skipped that date or its evening.
    """

    year: int
    on: date
    due_at: datetime
    ends_at: datetime

    def due_for(self, known_since: datetime, planned_since: datetime | None = None) -> datetime:
        """Return when to greet a user whose date and zone are known since one instant, and whose type is planned since.

        That is the due instant, or the latest of these, which is later on the same local date unless ``is_over``.
        """
        return max(self.due_at, known_since, planned_since or known_since)

    def is_over(self, at: datetime) -> bool:
        """Say whether the local date has ended. Who becomes known then is not greeted."""
        return at >= self.ends_at


@dataclass(frozen=True, slots=True)
class ZoneOccasion:
    """The birthday of everybody in ``zone`` whose ``month * 100 + day`` of birth is in ``month_days``."""

    zone: str
    month_days: tuple[int, ...]
    occasion: Occasion


def birthday_in(date_of_birth: date, year: int, leap_day: LeapDay) -> date:
    """Return the nominal date of the birthday in ``year``."""
    if date_of_birth.month == 2 and date_of_birth.day == 29 and not _is_leap(year):
        return date(year, 2, 28) if leap_day is LeapDay.FEB28 else date(year, 3, 1)
    return date_of_birth.replace(year=year)


def month_days_on(day: date, leap_day: LeapDay) -> tuple[int, ...]:
    """Return which ``month * 100 + day`` of birth are celebrated on ``day``: the inverse of ``birthday_in``."""
    own = day.month * 100 + day.day
    stand_in = 228 if leap_day is LeapDay.FEB28 else 301
    if own == stand_in and not _is_leap(day.year):
        return own, LEAP_MONTH_DAY
    return (own,)


def local_instant(zone: tzinfo, day: date, at: time) -> datetime:
    """Return the instant of a local date and time.

    If the time occurs twice, the first one is meant. If a clock change skips the time, the first instant after the
    change is meant. If the zone skips the whole date, the same time on the next date that exists is meant.
    """
    wall = datetime.combine(day, at)
    instant = wall.replace(tzinfo=zone).astimezone(UTC)
    if _wall(instant, zone) == wall:
        return instant
    after_gap = _first_instant_past(wall, zone)
    if _wall(after_gap - timedelta(microseconds=1), zone).date() < day < _wall(after_gap, zone).date():
        return local_instant(zone, day + _DAY, at)
    return after_gap


def occasion_on(zone: tzinfo, day: date, send_at: time) -> Occasion:
    """Return the occasion whose nominal date is ``day``."""
    due_at = local_instant(zone, day, send_at)
    on = _wall(due_at, zone).date()
    return Occasion(year=day.year, on=on, due_at=due_at, ends_at=local_instant(zone, on + _DAY, time()))


def birthdays(date_of_birth: date, zone: tzinfo, rules: Rules, first_year: int) -> Iterator[Occasion]:
    """Yield the birthdays from ``first_year`` to the end of the calendar, without the day of birth itself."""
    for year in range(max(first_year, date_of_birth.year + 1), LAST_YEAR + 1):
        yield occasion_on(zone, birthday_in(date_of_birth, year, rules.leap_day), rules.send_at)


def birthdays_from(date_of_birth: date, zone: tzinfo, rules: Rules, day: date) -> Iterator[Occasion]:
    """Yield the birthdays that fall on the local date ``day`` or later."""
    return (o for o in birthdays(date_of_birth, zone, rules, day.year - 1) if o.on >= day)


def birthdays_not_over(date_of_birth: date, zone: tzinfo, rules: Rules, instant: datetime) -> Iterator[Occasion]:
    """Yield the birthdays that end after ``instant``, in order of time."""
    # Earlier dates are over in every zone. They are skipped because the zone's look-up takes most of the time.
    first = instant.date() - _LONGEST_WAY_TO_END
    for year in range(max(first.year, date_of_birth.year + 1), LAST_YEAR + 1):
        day = birthday_in(date_of_birth, year, rules.leap_day)
        if day >= first and not (occasion := _remembered_occasion(zone, day, rules.send_at)).is_over(instant):
            yield occasion


def next_occasion(
    date_of_birth: date, zone: tzinfo, rules: Rules, schedule_from: datetime, taken_years: frozenset[int] = frozenset()
) -> Occasion | None:
    """Return the first birthday that is not over at ``schedule_from`` and whose year is not in ``taken_years``."""
    for occasion in birthdays_not_over(date_of_birth, zone, rules, schedule_from):
        if occasion.year not in taken_years:
            return occasion
    return None


def zone_occasions(zone: str, after: datetime, until: datetime, rules: Rules) -> list[ZoneOccasion]:
    """Return everybody's occasions of one zone that fall due in ``(after, until]``, in order of time."""
    day = (after - _WIDEST_OFFSET).date()
    last = (until + _WIDEST_OFFSET).date()
    found: list[ZoneOccasion] = []
    while day <= last:
        if after < _due_at(zone, day, rules.send_at) <= until:
            occasion = _remembered_occasion(load_zone(zone), day, rules.send_at)
            found.append(ZoneOccasion(zone, month_days_on(day, rules.leap_day), occasion))
        day += _DAY
    return found


def occasion_in(zone: str, day: date, rules: Rules) -> ZoneOccasion:
    """Return everybody's occasion of one zone whose nominal date is ``day``.

    Raises:
        InvalidInputError: if the zone does not exist.
    """
    occasion = _remembered_occasion(load_zone(zone), day, rules.send_at)
    return ZoneOccasion(zone, month_days_on(day, rules.leap_day), occasion)


@lru_cache(maxsize=16_384)
def _remembered_occasion(zone: tzinfo, day: date, send_at: time) -> Occasion:
    """Cache the occasion, because many users share a birthday and a zone."""
    return occasion_on(zone, day, send_at)


@lru_cache(maxsize=16_384)
def _due_at(zone: str, day: date, at: time) -> datetime:
    """Cache the instants of a few days in every zone, because each tick of the planner asks for the same ones."""
    return local_instant(load_zone(zone), day, at)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _wall(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _first_instant_past(wall: datetime, zone: tzinfo) -> datetime:
    """Return the instant, to the second, at which the zone's clock jumps over ``wall``: the end of the gap.

    PEP 495: for a time in a gap, fold=1 maps to before the jump and fold=0 to after it.
    """
    before = int(wall.replace(tzinfo=zone, fold=1).timestamp()) - 1
    after = int(wall.replace(tzinfo=zone, fold=0).timestamp()) + 1
    while after - before > 1:
        middle = (before + after) // 2
        if _wall(datetime.fromtimestamp(middle, UTC), zone) < wall:
            before = middle
        else:
            after = middle
    return datetime.fromtimestamp(after, UTC)
