"""Explains step by step what came of a user's occasions of a year: which date, rules and states led to that."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from birthday.core.dates import birthday_text
from birthday.core.message import PENDING, Status
from birthday.core.occasion import LAST_YEAR, Occasion, Rules, birthday_in, occasion_on
from birthday.core.zone import load_zone
from birthday.errors import InvalidInputError
from birthday.operations.pauses import is_paused
from birthday.store.connection import borrow
from birthday.store.explain import (
    ExplainedDate,
    ExplainedMessage,
    ExplainedUser,
    find_user,
    read_dates,
    read_messages_of_year,
)
from birthday.store.pauses import read_pauses
from birthday.store.users import Planning

NO_DATE: Final = "no-date"
FIRST_YEAR: Final = "first-year"
NO_TEMPLATE: Final = "no-template"
TOO_LATE: Final = "known-too-late"
DELETED: Final = "deleted"
SUPPRESSED: Final = "suppressed"
ARCHIVED: Final = "archived"
GREETED_BEFORE: Final = "greeted-before"
UNKNOWN_ZONE: Final = "unknown-zone"
NOT_YET: Final = "not-yet"
MISSING: Final = "missing"
PAUSED: Final = "paused"
NO_MESSAGE: Final = (
    NO_DATE,
    FIRST_YEAR,
    NO_TEMPLATE,
    TOO_LATE,
    DELETED,
    SUPPRESSED,
    ARCHIVED,
    GREETED_BEFORE,
    UNKNOWN_ZONE,
    NOT_YET,
    MISSING,
    PAUSED,
)
"""The outcomes besides the states of a message."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fact on the way to the outcome: what it is about, and what it says."""

    about: str
    says: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What came of one occasion. ``outcome`` is the status of its message, or one of the constants of this module."""

    message_type: str
    year: int
    outcome: str
    reason: str
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Explained:
    """A user, and what came of the occasions."""

    user: ExplainedUser
    explanations: Sequence[Explanation]


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains for one installation. ``planning`` and ``catch_up`` are those that its processes run with."""

    pool: asyncpg.Pool
    planning: Planning
    catch_up: timedelta

    async def explain(self, who: str, year: int | None, message_type: str | None, now: datetime) -> Explained:
        """Explain the occasions of a year, of one type or of all; without a year, of the current one there.

        Raises:
            NotFoundError: if there is no such user.
        """
        async with borrow(self.pool) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            user = await find_user(connection, who)
            pauses = {pause.message_type: pause for pause in await read_pauses(connection)}
            dates = await read_dates(connection, user.id)
            chosen = [one for one in dates if message_type in {None, one.message_type}]
            year = year or _local_year(user.zone, now)
            explanations = []
            for one in chosen:
                messages = await read_messages_of_year(connection, user.id, one.message_type, year)
                facts = _Facts(user, one, year, messages, is_paused(pauses, one.message_type))
                explanations.append(self._explain(facts, now))
        if not explanations and message_type is not None:
            explanations = [Explanation(message_type, year, NO_DATE, "the user has no date of this type", ())]
        return Explained(user, explanations)

    def _explain(self, facts: "_Facts", now: datetime) -> Explanation:
        user, of, year, last = facts.user, facts.of, facts.year, facts.messages[-1] if facts.messages else None
        occasion: Occasion | None = None
        hindrance: tuple[str, str] | None
        try:
            occasion = _occasion(user, of, year, self.planning.rules)
            hindrance = _hindrance(user, of, year, occasion)
        except InvalidInputError:
            hindrance = UNKNOWN_ZONE, f"'{user.zone}' is not a time zone, so nobody knows when the day is"
        steps = [*_date_steps(user, of, year, occasion, self.planning.rules)]
        steps += [Step("message", f"{one.id}: {self._describe(user, of, one)}") for one in facts.messages]
        if facts.is_paused:
            steps.append(Step("pause", "an operator has paused this type; 'birthday resume' ends that"))
        if last is not None and last.status != Status.CANCELLED:
            outcome, reason = last.status, self._describe(user, of, last)
            if facts.is_paused and last.status in PENDING:
                outcome, reason = PAUSED, f"{reason}; the type is paused"
        elif hindrance is not None and not (hindrance[0] == ARCHIVED and last and last.may_have_arrived):
            outcome, reason = hindrance
        elif last is not None:
            outcome, reason = last.status, self._describe(user, of, last)
        else:
            outcome, reason = self._without_message(of, occasion, now)
        return Explanation(of.message_type, year, outcome, reason, steps)

    def _without_message(self, of: ExplainedDate, occasion: Occasion | None, now: datetime) -> tuple[str, str]:
        due_at = occasion.due_for(of.schedule_from, of.planned_since) if occasion else now
        if now < due_at - self.planning.horizon:
            from_at = _at(due_at - self.planning.horizon)
            return NOT_YET, f"the message is planned PLAN_HORIZON before it is due, from {from_at}"
        if now < due_at:
            return NOT_YET, "the planner makes the message at one of its next ticks"
        return MISSING, f"it was due at {_at(due_at)} and has no message; 'birthday audit' looks at everybody"

    def _describe(self, user: ExplainedUser, of: ExplainedDate, one: ExplainedMessage) -> str:
        error = ": ".join(text for text in (one.error_type, one.error_detail) if text)
        match one.status:
            case Status.SCHEDULED:
                text = f"planned for {_at(one.scheduled_at)}"
            case Status.QUEUED:
                text = f"in the queue, due at {_at(one.scheduled_at)}"
            case Status.SENDING:
                text = f"attempt {one.attempts} is under way"
            case Status.RETRYING:
                text = f"attempt {one.attempts} failed ({error}); the next one is at {_at(one.next_attempt_at)}"
            case Status.DELIVERED:
                text = f"delivered at {_at(one.delivered_at)} by attempt {one.attempts}"
            case Status.FAILED:
                text = f"failed at {_at(one.updated_at)} ({error}); 'birthday dlq requeue --id {one.id}' tries again"
            case Status.EXPIRED:
                text = f"not sent within CATCH_UP_WINDOW ({self.catch_up}) after {_at(one.scheduled_at)}"
            case _:
                return f"cancelled at {_at(one.updated_at)}: {_why_cancelled(user, of, one)}"
        return text if one.schedule_from == of.schedule_from else f"{text}; planned before date or zone changed"


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is stored about one occasion."""

    user: ExplainedUser
    of: ExplainedDate
    year: int
    messages: Sequence[ExplainedMessage]
    is_paused: bool


def _local_year(zone: str, now: datetime) -> int:
    try:
        return now.astimezone(load_zone(zone)).year
    except InvalidInputError:
        return now.year


def _occasion(user: ExplainedUser, of: ExplainedDate, year: int, rules: Rules) -> Occasion | None:
    """Return the occasion of a year; None if the date has none.

    Raises:
        InvalidInputError: if the zone does not exist.
    """
    zone = load_zone(user.zone)
    if of.day is None or not of.day.year < year <= LAST_YEAR:
        return None
    return occasion_on(zone, birthday_in(of.day, year, rules.leap_day), rules.send_at)


def _hindrance(user: ExplainedUser, of: ExplainedDate, year: int, occasion: Occasion | None) -> tuple[str, str] | None:
    """Return the first rule that allows no message; None if there should be one."""
    if of.day is None:
        return NO_DATE, "the user has no date of this type any more"
    if occasion is None:
        return FIRST_YEAR, f"the first occurrence is a year after the date, in {of.day.year + 1}"
    if not of.is_planned:
        return NO_TEMPLATE, "the type has no published template, so it is not planned"
    if user.deleted_at is not None and user.deleted_at <= occasion.due_for(of.schedule_from, of.planned_since):
        return DELETED, f"the user was deleted at {_at(user.deleted_at)}, before it was due"
    if occasion.is_over(of.schedule_from):
        return TOO_LATE, f"date and zone are known since {_at(of.schedule_from)}, when the day was over for the user"
    if of.planned_since is not None and occasion.is_over(of.planned_since):
        return TOO_LATE, f"the type is planned since {_at(of.planned_since)}, when the day was over for the user"
    if of.recalled_year == year:
        return GREETED_BEFORE, "greeted this year already under an earlier user, with this address and date of birth"
    if of.greeted_year >= year:
        return ARCHIVED, f"the year is taken: there was a message of {of.greeted_year}"
    if user.suppressed:
        return SUPPRESSED, "the user is suppressed: nothing is ever sent"
    return None


def _date_steps(
    user: ExplainedUser, of: ExplainedDate, year: int, occasion: Occasion | None, rules: Rules
) -> Iterator[Step]:
    yield Step("date", birthday_text(of.day) if of.day else "none")
    if occasion is not None and of.day is not None:
        nominal = birthday_in(of.day, year, rules.leap_day)
        if nominal.day != of.day.day:
            yield Step("leap day", f"{year} has no 29 February; LEAP_DAY={rules.leap_day} puts it on {nominal}")
        local = occasion.due_at.astimezone(load_zone(user.zone))
        send_at = f"SEND_AT {rules.send_at:%H:%M}"
        yield Step("due", f"{local:%Y-%m-%d %H:%M} in {user.zone} ({send_at}) is {_at(occasion.due_at)}")
        if occasion.on != nominal:
            yield Step("zone", f"{nominal} does not exist in {user.zone}: the next date counts")
        elif local.time() != rules.send_at:
            yield Step("zone", f"a clock change skips {rules.send_at:%H:%M}: the first instant after it counts")
        due_at = occasion.due_for(of.schedule_from, of.planned_since)
        if occasion.due_at < due_at < occasion.ends_at:
            yield Step("day", f"it became known after that instant, still on that date: due at {_at(due_at)}")
    yield Step("known since", _at(of.schedule_from))
    if of.planned_since is not None:
        yield Step("type", f"planned since {_at(of.planned_since)}")
    if user.suppressed:
        yield Step("opt-out", "the user is suppressed")
    if user.deleted_at is not None:
        yield Step("deleted", _at(user.deleted_at))


def _why_cancelled(user: ExplainedUser, of: ExplainedDate, one: ExplainedMessage) -> str:
    if one.error_detail == "suppressed":
        return f"the user was suppressed{'; it may have arrived, so its year is taken' if one.may_have_arrived else ''}"
    if one.schedule_from != of.schedule_from:
        return "the date or the zone changed"
    if user.deleted_at is not None:
        return "the user was deleted"
    return "by hand"


def _at(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}" if instant else "an unknown time"


def explained_record(explained: Explained) -> dict[str, object]:
    """Return the JSON members of explanations."""
    return {
        "userId": explained.user.id,
        "occasions": [
            {
                "type": one.message_type,
                "year": one.year,
                "outcome": one.outcome,
                "reason": one.reason,
                "steps": [{"about": step.about, "says": step.says} for step in one.steps],
            }
            for one in explained.explanations
        ],
    }
