"""The rules of the audit: whose birthday was due when, and what the messages say about it.

It looks at birthdays from the other side than the planner does: from each day of birth forward to the date on which it
is celebrated, in every zone there is. A mistake in how messages are planned is not repeated here.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from birthday.core.message import PENDING, Status
from birthday.core.occasion import LeapDay, Occasion, Rules, ZoneOccasion, birthday_in, occasion_on
from birthday.core.zone import OFFSETS_IN_USE, fixed_zone_name, load_zone, zone_names

_DAY = timedelta(days=1)
_LEAP_YEAR = date(2000, 1, 1)


class Finding(StrEnum):
    """What came of a birthday that was due; and, besides, a message that there should not be.

    DELIVERED   the message service accepted the message
    EXPIRED     it was later than the catch-up window
    FAILED      it failed for good; an operator can requeue it
    PENDING     it is on its way, or its message is about to be replaced because the user has moved
    CANCELLED   the user was deleted after it was due and before it was sent
    ARCHIVED    retention has removed the message; the user's greeted_year says that there was one
    MISSING     there is no message, or one that was cancelled for no reason, or one that does not answer it
    DUPLICATE   a message that repeats another one of the same user and year
    MISTIMED    a message that was sent before its instant, or planned for another one than that of its user
    LATE        a message that was delivered more than an hour after its instant, as its times say
    """

    DELIVERED = "delivered"
    EXPIRED = "expired"
    FAILED = "failed"
    PENDING = "pending"
    CANCELLED = "cancelled"
    ARCHIVED = "archived"
    MISSING = "missing"
    DUPLICATE = "duplicate"
    MISTIMED = "mistimed"
    LATE = "late"


BROKEN = (Finding.MISSING, Finding.DUPLICATE, Finding.MISTIMED)
"""The findings that there must never be: a birthday was lost, greeted twice, or greeted at the wrong time."""

OF_MESSAGES = (Finding.DUPLICATE, Finding.MISTIMED, Finding.LATE)
"""The findings about messages, besides the one that there is about each birthday."""

FAILABLE = (Finding.FAILED, Finding.EXPIRED, Finding.LATE)
"""The findings that an operator may want to hear of as failures: somebody got no greeting, or not in time."""

EXACT = timedelta(minutes=1)
"""How far a message may be from its instant: hosts' clocks differ by seconds."""

LATE_AFTER = timedelta(hours=1)
"""What was delivered sooner than this after its instant is not late."""

CLOSEST = timedelta(days=300)
"""Whose birth date and zone stay what they are has birthdays that are much further apart than this."""

REPLACED_WITHIN = timedelta(hours=1)
"""How long a message that the claim has cancelled may go without its replacement: the planner sweeps that often, and
mostly at its next tick, because the claim asks for it."""

_SAME_OCCASION = timedelta(days=2)
"""How far the dates of one birthday can be apart: by another LEAP_DAY, or where a zone has skipped a date."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A message. ``planned_from`` is its own ``schedule_from``, ``on`` the local date that it greets.

    ``taken_over`` says that it may have arrived before its user moved: it is finished on its old date. ``sent_at`` is
    when it was first handed to the message service; ``requeued`` says that an operator had it sent again.
    """

    status: Status
    on: date
    planned_from: datetime
    delivered_at: datetime | None
    taken_over: bool
    scheduled_at: datetime | None = None
    sent_at: datetime | None = None
    requeued: bool = False


@dataclass(frozen=True, slots=True)
class Birthday:
    """One birthday that was due before its user was deleted, if ever, and the message of that year, if there is one.

    All of it is as stored. Without an answer, ``was_cancelled`` says that there is one that was planned from the user
    as it is, and cancelled; ``dropped_at`` when one that was planned from the user as it had been was last cancelled
    by the claim.
    """

    due_at: datetime
    year: int
    on: date
    created_at: datetime
    schedule_from: datetime
    deleted_at: datetime | None
    greeted_year: int
    answer: Counterpart | None
    was_cancelled: bool = False
    dropped_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """How far back the messages tell: those created before ``kept_from`` may have been removed.

    ``lead`` is how long before its instant a message may have been created.
    """

    kept_from: datetime
    lead: timedelta


def judge(birthday: Birthday, memory: Memory, now: datetime) -> Finding | None:
    """Say what came of a birthday; None if its year was taken before the date of birth or the zone moved.

    There is no grace for a birthday without a message: messages are made before they are due, or together with the
    user whom they are for. Only a user who moves while a message is being sent waits for its outcome, and if it has
    failed, until the claim has cancelled it and the planner has made another one.
    """
    answer = birthday.answer
    if answer is not None and _counts(birthday, answer):
        if answer.status in PENDING:
            return Finding.PENDING
        if answer.planned_from != birthday.schedule_from:
            return None
        return Finding.PENDING if answer.status is Status.SENDING else Finding(answer.status)
    removed = _may_be_removed(birthday, memory)
    if removed and birthday.greeted_year >= birthday.year:
        return Finding.ARCHIVED
    if birthday.deleted_at is not None and (
        birthday.was_cancelled or removed or _was_dropped_since(birthday, birthday.deleted_at - REPLACED_WITHIN)
    ):
        return Finding.CANCELLED
    return Finding.PENDING if _was_dropped_since(birthday, now - REPLACED_WITHIN) else Finding.MISSING


def judge_instant(birthday: Birthday, rules_since: datetime | None) -> Finding | None:
    """Say whether the message of a birthday was sent at another instant than it should have been; None if not.

    A message of a user who has moved is not looked at. ``rules_since`` is since when messages are planned by the rules
    that the birthday's own instant follows from; None if they are not, or nobody knows. What was planned before is only
    compared with the instant that it was planned for.
    """
    answer = birthday.answer
    sent_at = (answer.sent_at or answer.delivered_at) if answer else None
    if answer is None or sent_at is None or answer.scheduled_at is None:
        return None
    if answer.taken_over or answer.planned_from != birthday.schedule_from:
        return None
    is_comparable = rules_since is not None and answer.scheduled_at > rules_since
    is_elsewhere = is_comparable and abs(answer.scheduled_at - birthday.due_at) > EXACT
    if is_elsewhere or sent_at < answer.scheduled_at - EXACT:
        return Finding.MISTIMED
    delivered_at = None if answer.requeued else answer.delivered_at
    return Finding.LATE if delivered_at and delivered_at - answer.scheduled_at > LATE_AFTER else None


def _counts(birthday: Birthday, answer: Counterpart) -> bool:
    """Say whether a message of the year answers the birthday.

    One that nobody has seen delivered does not, nor one for another date, unless the user has moved since it was made.
    """
    if answer.status is Status.DELIVERED and answer.delivered_at is None:
        return False
    moved = answer.planned_from != birthday.schedule_from or answer.taken_over
    return moved or abs(answer.on - birthday.on) <= _SAME_OCCASION


def _was_dropped_since(birthday: Birthday, instant: datetime) -> bool:
    return birthday.dropped_at is not None and birthday.dropped_at > instant


def _may_be_removed(birthday: Birthday, memory: Memory) -> bool:
    """Say whether the message that took the year may be older than what is kept.

    That of a user who has moved since may be as old as the user; any other was created a little before its instant.
    """
    has_moved = birthday.schedule_from > birthday.created_at
    own = max(birthday.due_at - memory.lead, birthday.schedule_from)
    return (birthday.created_at if has_moved else own) < memory.kept_from


def every_zone() -> list[str]:
    """Return every zone that a user can have: those of the tz database, and the fixed offsets."""
    return sorted(zone_names()) + [fixed_zone_name(minutes) for minutes in sorted(OFFSETS_IN_USE)]


def occasions_under_way(from_at: datetime, to_at: datetime, rules: Rules) -> Iterator[list[ZoneOccasion]]:
    """Yield, a zone at a time, everybody's occasions that have begun before ``to_at`` and not ended by ``from_at``.

    Begun means due. So these are all whose greeting may fall in ``[from_at, to_at)``: also of users who came later on
    that same local date.
    """
    # A local date ends up to two and a half days after it began somewhere, and a day later where a date was skipped.
    days = _celebrated(from_at.date() - 4 * _DAY, to_at.date() + 2 * _DAY, rules.leap_day)
    for zone in every_zone():
        occasions = ((tuple(month_days), _occasion(zone, day, rules)) for day, month_days in days.items())
        yield [
            ZoneOccasion(zone, month_days, occasion)
            for month_days, occasion in occasions
            if occasion.due_at < to_at and occasion.ends_at > from_at
        ]


def _celebrated(first: date, last: date, leap_day: LeapDay) -> dict[date, list[int]]:
    """Return, for each date from ``first`` to ``last``, which ``month * 100 + day`` of birth are celebrated on it."""
    days: defaultdict[date, list[int]] = defaultdict(list)
    for number in range(366):
        born = _LEAP_YEAR + number * _DAY
        for year in range(first.year, last.year + 1):
            day = birthday_in(born, year, leap_day)
            if first <= day <= last:
                days[day].append(born.month * 100 + born.day)
    return days


@lru_cache(maxsize=16_384)
def _occasion(zone: str, day: date, rules: Rules) -> Occasion:
    """Remember a few days in every zone: those of one day's audit are mostly those of the next one's."""
    return occasion_on(load_zone(zone), day, rules.send_at)
