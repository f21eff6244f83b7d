"""The rules of the audit: what came of a birthday, and that both ways of looking for birthdays agree."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from birthday.core.audit import (
    REPLACED_WITHIN,
    Birthday,
    Counterpart,
    Finding,
    Memory,
    every_zone,
    judge,
    judge_instant,
    occasions_under_way,
)
from birthday.core.message import Status
from birthday.core.occasion import LeapDay, Rules, zone_occasions

NOW = datetime(2027, 11, 20, 12, tzinfo=UTC)
DUE = datetime(2027, 11, 19, 9, tzinfo=UTC)
CREATED = datetime(2026, 5, 1, tzinfo=UTC)
MOVED = datetime(2027, 11, 1, tzinfo=UTC)
MEMORY = Memory(NOW - timedelta(days=90), timedelta(hours=49))
MINUTE = timedelta(minutes=1)

DAY = timedelta(days=1)

GREETING = Counterpart(Status.DELIVERED, DUE.date(), CREATED, DUE, taken_over=False)
ANSWERED = Birthday(DUE, 2027, DUE.date(), CREATED, CREATED, None, 0, GREETING)
UNANSWERED = replace(ANSWERED, answer=None)
OLD = replace(UNANSWERED, due_at=DUE - timedelta(days=200))
FRESH = replace(UNANSWERED, created_at=DUE - MINUTE, schedule_from=DUE - MINUTE)


SENT = replace(GREETING, scheduled_at=DUE, sent_at=DUE)
HOURS = timedelta(hours=3)
RULES_SINCE = DUE - DAY


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        pytest.param(SENT, None, id="on time"),
        pytest.param(replace(SENT, sent_at=DUE - MINUTE), None, id="by a clock that is seconds ahead"),
        pytest.param(replace(SENT, sent_at=DUE - HOURS), Finding.MISTIMED, id="hours before its instant"),
        pytest.param(replace(SENT, sent_at=None, delivered_at=DUE - HOURS), Finding.MISTIMED, id="delivered before it"),
        pytest.param(
            replace(SENT, status=Status.FAILED, delivered_at=None, sent_at=DUE - HOURS), Finding.MISTIMED, id="failed"
        ),
        pytest.param(
            replace(SENT, scheduled_at=DUE - HOURS, sent_at=DUE - HOURS), Finding.MISTIMED, id="planned too early"
        ),
        pytest.param(
            replace(SENT, scheduled_at=DUE + HOURS, sent_at=DUE + HOURS), Finding.MISTIMED, id="planned too late"
        ),
        pytest.param(replace(SENT, delivered_at=DUE + HOURS), Finding.LATE, id="late"),
        pytest.param(replace(SENT, delivered_at=DUE + timedelta(minutes=59)), None, id="not so late"),
        pytest.param(replace(SENT, delivered_at=DUE + HOURS, requeued=True), None, id="requeued"),
        pytest.param(
            replace(SENT, scheduled_at=DUE + HOURS, sent_at=DUE + HOURS, requeued=True), None, id="due anew by a return"
        ),
        pytest.param(
            replace(SENT, scheduled_at=DUE + HOURS, requeued=True), None, id="due anew by a return, after a failed send"
        ),
        pytest.param(replace(SENT, sent_at=DUE - HOURS, planned_from=MOVED), None, id="the user has moved"),
        pytest.param(replace(SENT, sent_at=DUE - HOURS, taken_over=True), None, id="taken over by a move"),
        pytest.param(replace(SENT, status=Status.QUEUED, sent_at=None, delivered_at=None), None, id="not sent yet"),
        pytest.param(None, None, id="no message"),
    ],
)
def test_a_message_that_is_sent_at_another_instant_is_a_finding(
    answer: Counterpart | None, finding: Finding | None
) -> None:
    """Unless a reason is stored with it."""
    assert judge_instant(replace(ANSWERED, answer=answer), RULES_SINCE) is finding


@pytest.mark.parametrize("rules_since", [None, DUE + HOURS])
def test_what_was_planned_by_other_rules_is_compared_with_its_own_instant_only(rules_since: datetime | None) -> None:
    """SEND_AT was another one then, or the audit does not know the planner's."""
    moved = replace(ANSWERED, answer=replace(SENT, scheduled_at=DUE + HOURS, sent_at=DUE + HOURS))
    early = replace(ANSWERED, answer=replace(SENT, sent_at=DUE - HOURS))
    assert judge_instant(moved, rules_since) is None
    assert judge_instant(early, rules_since) is Finding.MISTIMED


@pytest.mark.parametrize(
    ("status", "finding"),
    [
        (Status.SCHEDULED, Finding.PENDING),
        (Status.QUEUED, Finding.PENDING),
        (Status.SENDING, Finding.PENDING),
        (Status.RETRYING, Finding.PENDING),
        (Status.DELIVERED, Finding.DELIVERED),
        (Status.FAILED, Finding.FAILED),
        (Status.EXPIRED, Finding.EXPIRED),
    ],
)
def test_a_message_of_the_year_answers_with_its_status(status: Status, finding: Finding) -> None:
    """Whatever is not finished is pending, however late it is."""
    assert judge(replace(ANSWERED, answer=replace(GREETING, status=status)), MEMORY, NOW) is finding


@pytest.mark.parametrize(
    ("birthday", "finding"),
    [
        pytest.param(UNANSWERED, Finding.MISSING, id="no message"),
        pytest.param(replace(UNANSWERED, due_at=NOW), Finding.MISSING, id="no message, just now"),
        pytest.param(replace(UNANSWERED, was_cancelled=True), Finding.MISSING, id="cancelled for no reason"),
        pytest.param(
            replace(UNANSWERED, was_cancelled=True, deleted_at=NOW - MINUTE), Finding.CANCELLED, id="deleted unsent"
        ),
        pytest.param(replace(UNANSWERED, deleted_at=DUE + MINUTE), Finding.MISSING, id="lost, and deleted later"),
        pytest.param(replace(ANSWERED, deleted_at=NOW - MINUTE), Finding.DELIVERED, id="delivered, deleted later"),
    ],
)
def test_without_a_message_a_birthday_is_missing_unless_there_is_a_reason(birthday: Birthday, finding: Finding) -> None:
    """The reason is that the user was deleted before it could be sent."""
    assert judge(birthday, MEMORY, NOW) is finding


@pytest.mark.parametrize(
    ("status", "finding"),
    [
        (Status.DELIVERED, None),
        (Status.FAILED, None),
        (Status.EXPIRED, None),
        (Status.SENDING, None),
        (Status.SCHEDULED, Finding.PENDING),
        (Status.QUEUED, Finding.PENDING),
        (Status.RETRYING, Finding.PENDING),
    ],
)
def test_a_message_for_an_earlier_date_of_birth_takes_the_year_once_it_was_sent(
    status: Status, finding: Finding | None
) -> None:
    """Then nothing more is expected this year; one that still waits is about to be replaced, or finished."""
    old = replace(GREETING, status=status, on=DUE.date() - 100 * DAY)
    assert judge(replace(ANSWERED, answer=old, schedule_from=MOVED), MEMORY, NOW) is finding


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        pytest.param(replace(GREETING, delivered_at=None), Finding.MISSING, id="nobody saw it delivered"),
        pytest.param(
            replace(GREETING, delivered_at=None, planned_from=MOVED), Finding.MISSING, id="nor before the move"
        ),
        pytest.param(replace(GREETING, on=DUE.date() - 2 * DAY), Finding.DELIVERED, id="two days before"),
        pytest.param(replace(GREETING, on=DUE.date() - 3 * DAY), Finding.MISSING, id="three days before"),
        pytest.param(replace(GREETING, on=DUE.date() + 3 * DAY), Finding.MISSING, id="three days after"),
        pytest.param(
            replace(GREETING, on=DUE.date() + 3 * DAY, status=Status.QUEUED), Finding.MISSING, id="waits for that day"
        ),
        pytest.param(
            replace(GREETING, on=DUE.date() - 60 * DAY, taken_over=True), Finding.DELIVERED, id="kept by a move"
        ),
        pytest.param(replace(GREETING, on=DUE.date() - 60 * DAY, planned_from=MOVED), None, id="greeted, then moved"),
    ],
)
def test_only_a_message_for_the_date_answers_unless_the_user_has_moved(
    answer: Counterpart, finding: Finding | None
) -> None:
    """The date of one birthday may differ by two days at the most, and delivered means that somebody saw it."""
    assert judge(replace(ANSWERED, answer=answer), MEMORY, NOW) is finding


@pytest.mark.parametrize(
    ("birthday", "finding"),
    [
        pytest.param(replace(UNANSWERED, dropped_at=NOW - REPLACED_WITHIN + MINUTE), Finding.PENDING, id="just now"),
        pytest.param(replace(UNANSWERED, dropped_at=NOW - REPLACED_WITHIN), Finding.MISSING, id="an hour ago"),
        pytest.param(
            replace(UNANSWERED, dropped_at=NOW - DAY, deleted_at=NOW - DAY + MINUTE), Finding.CANCELLED, id="deleted"
        ),
        pytest.param(
            replace(UNANSWERED, dropped_at=DUE + MINUTE, deleted_at=NOW - MINUTE),
            Finding.MISSING,
            id="deleted too late",
        ),
    ],
)
def test_a_message_that_the_claim_cancelled_is_replaced_within_an_hour(birthday: Birthday, finding: Finding) -> None:
    """Until then it is on its way; a user who is deleted meanwhile needs none."""
    assert judge(birthday, MEMORY, NOW) is finding


@pytest.mark.parametrize(
    ("birthday", "finding"),
    [
        pytest.param(replace(OLD, greeted_year=2027), Finding.ARCHIVED, id="removed by retention"),
        pytest.param(replace(OLD, greeted_year=2026), Finding.MISSING, id="old, and never answered"),
        pytest.param(replace(UNANSWERED, greeted_year=2027), Finding.MISSING, id="too young to be removed"),
        pytest.param(replace(FRESH, greeted_year=2027), Finding.MISSING, id="user too young"),
        pytest.param(
            replace(UNANSWERED, greeted_year=2027, schedule_from=MOVED),
            Finding.ARCHIVED,
            id="moved after a greeting that is removed",
        ),
        pytest.param(
            replace(UNANSWERED, greeted_year=2027, created_at=MOVED - MINUTE, schedule_from=MOVED),
            Finding.MISSING,
            id="moved, and too young for a greeting that is removed",
        ),
        pytest.param(replace(OLD, deleted_at=NOW - MINUTE), Finding.CANCELLED, id="deleted, and too old to tell"),
    ],
)
def test_a_year_that_was_greeted_is_archived_only_if_retention_can_have_removed_the_message(
    birthday: Birthday, finding: Finding
) -> None:
    """A message that is younger than the retention and gone was not removed by it."""
    assert judge(birthday, MEMORY, NOW) is finding


@pytest.mark.parametrize("leap_day", LeapDay)
@pytest.mark.parametrize("send_at", [time(9), time(0), time(23, 59)])
@pytest.mark.parametrize(
    "day",
    [
        datetime(2026, 12, 31, tzinfo=UTC),
        datetime(2027, 2, 28, tzinfo=UTC),
        datetime(2027, 3, 1, tzinfo=UTC),
        datetime(2028, 2, 28, tzinfo=UTC),
        datetime(2028, 2, 29, tzinfo=UTC),
        datetime(2027, 3, 28, tzinfo=UTC),
        datetime(2027, 10, 31, tzinfo=UTC),
    ],
)
def test_the_audit_and_the_planner_find_the_same_birthdays(leap_day: LeapDay, send_at: time, day: datetime) -> None:
    """One goes from days of birth to dates, the other from dates to days of birth: in every zone they meet."""
    rules = Rules(send_at, leap_day)
    until = day + timedelta(days=1)
    audited = {
        (one.zone, month_day, one.occasion)
        for occasions in occasions_under_way(day, until, rules)
        for one in occasions
        for month_day in one.month_days
        if day <= one.occasion.due_at < until
    }
    moment = timedelta(microseconds=1)
    planned = {
        (one.zone, month_day, one.occasion)
        for zone in every_zone()
        for one in zone_occasions(zone, day - moment, until - moment, rules)
        for month_day in one.month_days
    }
    assert audited == planned
    # A day has 25 hours where clocks are set back: 09:00 may then be in none of a window of 24.
    assert len({zone for zone, _, _ in audited}) > 600


def test_what_began_before_the_window_and_has_not_ended_is_under_way() -> None:
    """Somebody who comes in the evening of the birthday is greeted then: hours after 09:00, or the next day in UTC."""
    evening = datetime(2027, 3, 2, 3, tzinfo=UTC)
    [found] = [
        one
        for occasions in occasions_under_way(evening, evening + timedelta(hours=1), Rules())
        for one in occasions
        if one.zone == "America/Los_Angeles"
    ]
    assert found.month_days == (301,)
    assert found.occasion.due_at == datetime(2027, 3, 1, 17, tzinfo=UTC)
