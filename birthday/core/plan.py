"""Which messages a user needs now, and when the next one is due: the rules of ``occasion.py`` for one profile."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from birthday.core.occasion import Occasion, Rules, birthdays_not_over, next_occasion
from birthday.core.user import Profile
from birthday.core.zone import load_zone

OVERLAP = timedelta(hours=1)
"""How much further than the planner a change of a user looks ahead.

The planner does not see a change that is committed after it has read the user. So the change itself makes all messages
up to the horizon and this much more. Then no message is missed, if the hosts' clocks differ by less than this.
"""


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """A message to materialise: the occasion, and the instant at which it is due for this user."""

    occasion: Occasion
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Outlook:
    """The messages to materialise for a user whose birth date and zone are new, and when the next one falls due.

    ``first_at`` is None at the end of the calendar.
    """

    messages: list[PlannedMessage]
    first_at: datetime | None


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
    """Return the messages up to the horizon and OVERLAP; birth date and zone are new since ``schedule_from``."""
    planned: list[PlannedMessage] = []
    first_at: datetime | None = None
    for occasion in birthdays_not_over(profile.date_of_birth, load_zone(profile.zone), rules, schedule_from):
        due_at = max(occasion.due_at, schedule_from)
        first_at = first_at or due_at
        if due_at > schedule_from + horizon + OVERLAP:
            break
        planned.append(PlannedMessage(occasion, due_at))
    return Outlook(planned, first_at)


def planned_messages(
    profile: Profile, schedule_from: datetime, horizon: timedelta, rules: Rules
) -> list[PlannedMessage]:
    """Return only the messages of ``look_ahead``."""
    return look_ahead(profile, schedule_from, horizon, rules).messages


def messages_since(
    profile: Profile, schedule_from: datetime, since: datetime, now: datetime, horizon: timedelta, rules: Rules
) -> list[PlannedMessage]:
    """Return the messages of a restored user for birthdays that end after ``since``, up to the horizon."""
    planned: list[PlannedMessage] = []
    zone = load_zone(profile.zone)
    for occasion in birthdays_not_over(profile.date_of_birth, zone, rules, max(schedule_from, since)):
        due_at = max(occasion.due_at, schedule_from)
        if due_at > now + horizon + OVERLAP:
            break
        planned.append(PlannedMessage(occasion, due_at))
    return planned


def next_message_at(
    profile: Profile, schedule_from: datetime, now: datetime, taken_years: Collection[int], rules: Rules
) -> datetime | None:
    """Return when the next message that is not materialised yet falls due, UTC; None at the end of the calendar."""
    zone = load_zone(profile.zone)
    occasion = next_occasion(profile.date_of_birth, zone, rules, max(now, schedule_from), frozenset(taken_years))
    return occasion.due_for(schedule_from) if occasion else None
