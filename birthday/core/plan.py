"""Which messages a user needs now, and when the next one is due: the rules of section 5 applied to one profile."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from birthday.core.occasion import Occasion, Rules, birthdays, next_occasion
from birthday.core.user import Profile
from birthday.core.zone import load_zone

OVERLAP = timedelta(hours=1)
"""How much further than the planner a change of a user looks ahead.

The planner does not see a change that is committed after it has read; that change itself then covers everything up
to the horizon and this much more, so that nothing falls between the two, on hosts whose clocks differ by less.
"""


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """A message to materialise: the occasion, and the instant at which it is due for this user."""

    occasion: Occasion
    due_at: datetime


def planned_messages(
    profile: Profile, schedule_from: datetime, horizon: timedelta, rules: Rules
) -> list[PlannedMessage]:
    """Return what a user needs before the planner looks again; birth date and zone are new since ``schedule_from``."""
    planned: list[PlannedMessage] = []
    for occasion in birthdays(profile.date_of_birth, load_zone(profile.zone), rules, schedule_from.year - 1):
        due_at = occasion.due_for(schedule_from)
        if due_at is None:
            continue
        if due_at > schedule_from + horizon + OVERLAP:
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
