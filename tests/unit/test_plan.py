"""Which messages a user needs: those of every yearly date, each by its own history."""

from datetime import date, timedelta

from birthday.core.ident import uuid7
from birthday.core.occasion import Rules
from birthday.core.origin import History, Origin
from birthday.core.plan import last_dates_over, messages_since, planned_messages
from birthday.core.user import Extras, Profile
from tests.support.product import parse

JOINED, NAME_DAY = "work-anniversary", "name-day"
NOW = parse("2027-03-01T12:00:00Z")
HORIZON = timedelta(hours=48)
ADA = Profile(
    "Ada",
    "Lovelace",
    "ada@example.com",
    date(1990, 3, 1),
    "UTC",
    Extras(anniversaries={JOINED: date(2019, 2, 28), NAME_DAY: date(2026, 3, 2)}),
)


def test_each_date_that_falls_due_soon_needs_a_message() -> None:
    """Today is due now, tomorrow at nine; yesterday is over, and so is a date whose first year has not passed."""
    messages = planned_messages(ADA, NOW, HORIZON, Rules())
    assert [(one.message_type, one.due_at) for one in messages] == [
        ("birthday", NOW),
        (NAME_DAY, parse("2027-03-02T09:00:00Z")),
    ]


def test_the_last_date_that_is_over_is_within_a_year() -> None:
    """Yesterday is over, today is not; a date without a first year yet has none."""
    assert last_dates_over(ADA, NOW, Rules()) == {"birthday": date(2026, 3, 1), JOINED: date(2027, 2, 28)}
    assert last_dates_over(ADA, NOW + timedelta(hours=12), Rules())["birthday"] == date(2027, 3, 1)


def test_a_restored_user_gets_what_fell_due_meanwhile_by_the_history_of_each_date() -> None:
    """A date that is known since before the backup is caught up with; a year that was greeted is not repeated."""
    before, since = parse("2026-01-01T00:00:00Z"), parse("2027-02-28T06:00:00Z")
    origin = Origin(
        id=uuid7(NOW),
        createdAt=before,
        scheduleFrom=before,
        greetedYear=2027,
        anniversaryHistory={NAME_DAY: History(scheduleFrom=parse("2027-03-02T10:00:00Z"))},
    )
    messages = messages_since(ADA, origin, since, NOW, HORIZON, Rules())
    assert [(one.message_type, one.due_at) for one in messages] == [
        (JOINED, parse("2027-02-28T09:00:00Z")),
        (NAME_DAY, parse("2027-03-02T10:00:00Z")),
    ]
