"""The rules of the audit: what came of a birthday, and that both ways of looking for birthdays agree."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from birthday.core.audit import Birthday, Finding, Memory, every_zone, judge, occasions_under_way
from birthday.core.message import Status
from birthday.core.occasion import LeapDay, Rules, zone_occasions

NOW = datetime(2027, 11, 20, 12, tzinfo=UTC)
DUE = datetime(2027, 11, 19, 9, tzinfo=UTC)
CREATED = datetime(2026, 5, 1, tzinfo=UTC)
MOVED = datetime(2027, 11, 1, tzinfo=UTC)
MEMORY = Memory(NOW - timedelta(days=90), timedelta(hours=49))
MINUTE = timedelta(minutes=1)

ANSWERED = Birthday(DUE, 2027, CREATED, CREATED, None, 0, Status.DELIVERED, CREATED, was_cancelled=False)
UNANSWERED = replace(ANSWERED, status=None, planned_from=None)
OLD = replace(UNANSWERED, due_at=DUE - timedelta(days=200))
FRESH = replace(UNANSWERED, created_at=DUE - MINUTE, schedule_from=DUE - MINUTE)


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
    assert judge(replace(ANSWERED, status=status), MEMORY) is finding


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
    assert judge(birthday, MEMORY) is finding


@pytest.mark.parametrize(
    ("status", "finding"),
    [
        (Status.DELIVERED, None),
        (Status.FAILED, None),
        (Status.EXPIRED, None),
        (Status.SENDING, None),
        (Status.SCHEDULED, Finding.MISSING),
        (Status.QUEUED, Finding.MISSING),
        (Status.RETRYING, Finding.MISSING),
    ],
)
def test_a_message_for_an_earlier_date_of_birth_takes_the_year_once_it_was_sent(
    status: Status, finding: Finding | None
) -> None:
    """Then nothing more is expected this year; one that still waits will be cancelled, and answers nothing."""
    moved = replace(ANSWERED, status=status, planned_from=CREATED, schedule_from=MOVED)
    assert judge(moved, MEMORY) is finding


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
    assert judge(birthday, MEMORY) is finding


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
