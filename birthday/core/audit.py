"""The rules of the audit: when each birthday was due, and what the messages say about it.

The audit takes a different way from the planner's: from each day of birth forward to the date on which it is
celebrated, in every zone. So it does not repeat a mistake of the planner.
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
    """What the audit says of a birthday that was due, or of a message that is wrong.

    DELIVERED   the message service accepted the message
    EXPIRED     it was later than the catch-up window
    FAILED      it failed for good; an operator can requeue it
    PENDING     it is on its way, or its message is about to be replaced because the user has moved
    CANCELLED   the user was deleted after the birthday was due and before its message was sent, or was suppressed
    ARCHIVED    retention has removed the message, and the user's greeted_year says that there was one; or an earlier
                user of the same person was greeted
    MISSING     there is no message, or only one that was cancelled for no reason or is not for this birthday
    DUPLICATE   a message that repeats another one of the same user and year
    MISTIMED    a message that was sent before its instant, or planned for another instant than its user's
    LATE        a message that was delivered more than an hour after its instant
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
"""The findings that must never occur: a birthday was lost, greeted twice, or greeted at the wrong time."""

OF_MESSAGES = (Finding.DUPLICATE, Finding.MISTIMED, Finding.LATE)
"""The findings about messages. They come in addition to the one finding about each birthday."""

FAILABLE = (Finding.FAILED, Finding.EXPIRED, Finding.LATE)
"""The findings that an operator may treat as failures, because somebody got no greeting, or got it late."""

EXACT = timedelta(minutes=1)
"""How far a message may be from its instant, because hosts' clocks differ by seconds."""

LATE_AFTER = timedelta(hours=1)
"""A message is late if it was delivered more than this after its instant."""

CLOSEST = timedelta(days=300)
"""As long as birth date and zone do not change, two birthdays of a user are much further apart than this."""

REPLACED_WITHIN = timedelta(hours=1)
"""How long a message that the claim has cancelled may be without a replacement. The planner sweeps this often, and
mostly at its next tick, because the claim requests a sweep."""

_SAME_OCCASION = timedelta(days=2)
"""How far apart the dates of one birthday can be, if LEAP_DAY has changed or a zone has skipped a date."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A message. ``planned_from`` is its own ``schedule_from``, ``on`` the local date of the birthday.

    ``taken_over`` says that the message may have arrived before its user moved, so it is finished on its old date.
    ``sent_at`` is when it was first sent to the message service. ``requeued`` says that an operator has requeued it.
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
    """One birthday that was due while its user was not deleted, and the message of that year, if there is one.

    The values are as stored. If ``answer`` is None, ``was_cancelled`` says that a message of the user's current
    schedule version was cancelled, ``was_suppressed`` that this was because the user had opted out, ``was_recalled``
    that an earlier user of the same person was greeted that year, and ``dropped_at`` is when the claim last cancelled
    one of an older version.
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
    was_suppressed: bool = False
    was_recalled: bool = False
    dropped_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """How far back messages are kept: those created before ``kept_from`` may have been removed.

    ``lead`` is the longest time between the creation of a message and its instant.
    """

    kept_from: datetime
    lead: timedelta


def judge(birthday: Birthday, memory: Memory, now: datetime) -> Finding | None:
    """Return the finding about a birthday; None if its year was taken before the date of birth or the zone moved.

    A due birthday without a message is missing at once, because messages are made before they are due, or together with
    their user. There is one exception: if a user moves while a message is being sent and that send fails, the birthday
    has no message until the claim has cancelled the old one and the planner has made a new one.
    """
    answer = birthday.answer
    if answer is not None and _counts(birthday, answer):
        if answer.status in PENDING:
            return Finding.PENDING
        if answer.planned_from != birthday.schedule_from:
            return None
        return Finding.PENDING if answer.status is Status.SENDING else Finding(answer.status)
    if birthday.was_suppressed:
        return Finding.CANCELLED
    if birthday.was_recalled:
        return Finding.ARCHIVED
    removed = _may_be_removed(birthday, memory)
    if removed and birthday.greeted_year >= birthday.year:
        return Finding.ARCHIVED
    if birthday.deleted_at is not None and (
        birthday.was_cancelled or removed or _was_dropped_since(birthday, birthday.deleted_at - REPLACED_WITHIN)
    ):
        return Finding.CANCELLED
    return Finding.PENDING if _was_dropped_since(birthday, now - REPLACED_WITHIN) else Finding.MISSING


def judge_instant(birthday: Birthday, rules_since: datetime | None) -> Finding | None:
    """Return MISTIMED or LATE if the message of a birthday was not sent at its instant, else None.

    The message of a user who has moved is not judged. ``rules_since`` is when the planner began to use the rules that
    ``birthday.due_at`` was computed by; None if it uses other rules, or if that is unknown. A message that was planned
    for an earlier instant, or requeued, may be elsewhere than ``birthday.due_at``. No message may be sent too early.
    """
    answer = birthday.answer
    sent_at = (answer.sent_at or answer.delivered_at) if answer else None
    if answer is None or sent_at is None or answer.scheduled_at is None:
        return None
    if answer.taken_over or answer.planned_from != birthday.schedule_from:
        return None
    is_comparable = rules_since is not None and answer.scheduled_at > rules_since and not answer.requeued
    is_elsewhere = is_comparable and abs(answer.scheduled_at - birthday.due_at) > EXACT
    # One that is due anew since its user has returned may have been sent before, in vain.
    planned_for = min(answer.scheduled_at, birthday.due_at) if answer.requeued else answer.scheduled_at
    if is_elsewhere or sent_at < planned_for - EXACT:
        return Finding.MISTIMED
    delivered_at = None if answer.requeued else answer.delivered_at
    return Finding.LATE if delivered_at and delivered_at - answer.scheduled_at > LATE_AFTER else None


def _counts(birthday: Birthday, answer: Counterpart) -> bool:
    """Say whether a message of the year counts as the message of the birthday.

    A message that is ``delivered`` without ``delivered_at`` does not count. A message for another date counts only if
    the user has moved since it was made.
    """
    if answer.status is Status.DELIVERED and answer.delivered_at is None:
        return False
    moved = answer.planned_from != birthday.schedule_from or answer.taken_over
    return moved or abs(answer.on - birthday.on) <= _SAME_OCCASION


def _was_dropped_since(birthday: Birthday, instant: datetime) -> bool:
    return birthday.dropped_at is not None and birthday.dropped_at > instant


def _may_be_removed(birthday: Birthday, memory: Memory) -> bool:
    """Say whether retention may have removed the message that took the year.

    If the user has moved since, that message may be as old as the user. Otherwise it was created at most ``lead``
    before its instant.
    """
    has_moved = birthday.schedule_from > birthday.created_at
    own = max(birthday.due_at - memory.lead, birthday.schedule_from)
    return (birthday.created_at if has_moved else own) < memory.kept_from


def every_zone() -> list[str]:
    """Return every zone that a user can have: those of the tz database, and the fixed offsets."""
    return sorted(zone_names()) + [fixed_zone_name(minutes) for minutes in sorted(OFFSETS_IN_USE)]


def occasions_under_way(from_at: datetime, to_at: datetime, rules: Rules) -> Iterator[list[ZoneOccasion]]:
    """Yield, one zone at a time, the occasions that fall due before ``to_at`` and end after ``from_at``.

    These are all occasions whose greeting may fall in ``[from_at, to_at)``, because a user who is created later on the
    same local date is greeted then.
    """
    # A local date ends up to two and a half days after it begins anywhere, and a day later if a zone skips a date.
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
    """Cache a few days in every zone, because the audits of two days in a row mostly need the same ones."""
    return occasion_on(load_zone(zone), day, rules.send_at)
