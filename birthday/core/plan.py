"""Which messages a user needs now, and when the next one is due: the rules of ``occasion.py`` for one profile."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from birthday.core.occasion import Occasion, Rules, birthdays, birthdays_not_over, next_occasion
from birthday.core.origin import Origin
from birthday.core.user import Profile
from birthday.core.zone import load_zone

OVERLAP = timedelta(hours=1)
"""How much further than the planner a change of a user looks ahead.

The planner does not see a change that is committed after it has read the user. So the change itself makes all messages
up to the horizon and this much more. Then no message is missed, if the hosts' clocks differ by less than this.
"""


class PlannedMessage(NamedTuple):
    """A message to materialise: its type, the occasion, and the instant at which it is due for this user."""

    message_type: str
    occasion: Occasion
    due_at: datetime


class Upcoming(NamedTuple):
    """The next occasion of one of a user's dates: its local date, and when its message is due.

    ``due_at`` is None if there will be no message, because the type is not planned or the user is suppressed.
    """

    message_type: str
    on: date
    due_at: datetime | None


class YearlyDate(NamedTuple):
    """A date of a user as stored, and which messages there are for it.

    ``planned_since`` is None if its type is not planned. ``pending_at`` and ``pending_on`` are instant and local date
    of the message that is planned; ``taken_years`` are those for which a message was sent, or is past being sent.
    """

    message_type: str
    day: date
    planned_since: datetime | None
    schedule_from: datetime
    greeted_year: int
    pending_at: datetime | None
    pending_on: date | None
    taken_years: Sequence[int] | None


class Outlook(NamedTuple):
    """The messages to materialise for a user whose dates and zone are new, and the next occasion of each date."""

    messages: list[PlannedMessage]
    upcoming: list[Upcoming]


@dataclass(frozen=True, slots=True)
class Basis:
    """What planned instants depend on: SEND_AT and LEAP_DAY, and the release of the time-zone data.

    The planner stores it, so that other planners know by which rules messages were planned. If two processes have
    different data, the newer data count. ``09:00:00 feb28 2026b+2025a`` says that messages were planned by 2026b, and
    that a process with the older 2025a has planned some since.
    """

    rules: Rules
    zone_data: str

    def __str__(self) -> str:
        """Return the text that is stored."""
        return f"{self._head} {self.zone_data}"

    @property
    def _head(self) -> str:
        return f"{self.rules.send_at.isoformat()} {self.rules.leap_day}"

    def yields_to(self, noted: str | None) -> bool:
        """Say whether ``noted`` has the same rules and newer data."""
        head, _, data = (noted or "").rpartition(" ")
        return head == self._head and data.partition("+")[0] > self.zone_data

    def beside(self, noted: str) -> str:
        """Return what to store when this basis has planned something, and yields to ``noted``."""
        return f"{noted.partition('+')[0]}+{self.zone_data}"


def look_ahead(profile: Profile, schedule_from: datetime, horizon: timedelta, rules: Rules) -> Outlook:
    """Return the messages up to the horizon and OVERLAP; dates and zone are new since ``schedule_from``.

    They are those of all dates: whether a type is planned is for the database to say.
    """
    planned: list[PlannedMessage] = []
    upcoming: list[Upcoming] = []
    zone = load_zone(profile.zone)
    until = schedule_from + horizon + OVERLAP
    for message_type, day in profile.dates():
        first = True
        for occasion in birthdays_not_over(day, zone, rules, schedule_from):
            due_at = occasion.due_for(schedule_from)
            if first:
                upcoming.append(Upcoming(message_type, occasion.on, due_at))
                first = False
            if due_at > until:
                break
            planned.append(PlannedMessage(message_type, occasion, due_at))
    return Outlook(planned, sorted(upcoming, key=lambda one: one.on))


def planned_messages(
    profile: Profile, schedule_from: datetime, horizon: timedelta, rules: Rules
) -> list[PlannedMessage]:
    """Return only the messages of ``look_ahead``."""
    return look_ahead(profile, schedule_from, horizon, rules).messages


def last_dates_over(profile: Profile, now: datetime, rules: Rules) -> dict[str, date]:
    """Return, for each type, the local date of the last occasion that is over, if it was within about a year."""
    zone = load_zone(profile.zone)
    return {
        message_type: occasion.on
        for message_type, day in profile.dates()
        for occasion in takewhile(lambda one: one.is_over(now), birthdays(day, zone, rules, now.year - 1))
    }


def messages_since(
    profile: Profile, origin: Origin, since: datetime, now: datetime, horizon: timedelta, rules: Rules
) -> list[PlannedMessage]:
    """Return the messages of a restored user for occasions that end after ``since``, up to the horizon.

    Years that were greeted before the restore are left out.
    """
    planned: list[PlannedMessage] = []
    zone = load_zone(profile.zone)
    for message_type, day in profile.dates():
        history = origin.history_of(message_type)
        for occasion in birthdays_not_over(day, zone, rules, max(history.schedule_from, since)):
            due_at = occasion.due_for(history.schedule_from)
            if due_at > now + horizon + OVERLAP:
                break
            if occasion.year > history.greeted_year:
                planned.append(PlannedMessage(message_type, occasion, due_at))
    return planned


def upcoming_occasions(dates: Sequence[YearlyDate], profile: Profile, now: datetime, rules: Rules) -> list[Upcoming]:
    """Return the next occasion of each date for which there is or will be a message, in order of time.

    A date has none at the end of the calendar.

    Raises:
        InvalidInputError: if the zone does not exist.
    """
    zone = load_zone(profile.zone)
    found: list[Upcoming] = []
    for one in dates:
        on, due_at = one.pending_on, one.pending_at
        if on is None:
            taken = frozenset((one.greeted_year, *(one.taken_years or ())))
            occasion = next_occasion(one.day, zone, rules, max(now, one.schedule_from), taken)
            if occasion is None:
                continue
            on, due_at = occasion.on, occasion.due_for(one.schedule_from, one.planned_since)
        is_sent = one.planned_since is not None and not profile.extras.suppressed
        found.append(Upcoming(one.message_type, on, due_at if is_sent else None))
    return sorted(found, key=lambda one: one.on)
