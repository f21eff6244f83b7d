"""Cron expressions in settings. croniter is imported at first use, because most commands do not need it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise


def parse_cron(value: str) -> str:
    """Return ``value`` if it is a cron expression of five fields that matches at least one date."""
    from croniter import CroniterBadDateError, croniter  # noqa: PLC0415 - most commands run without it

    if len(value.split()) != 5 or not croniter.is_valid(value):
        raise ValueError("a cron expression of five fields is accepted, such as */5 * * * *")
    try:
        croniter(value, datetime(2028, 1, 1, tzinfo=UTC)).get_next()
    except CroniterBadDateError:
        raise ValueError("a cron expression that some date matches is accepted, such as */5 * * * *") from None
    return value


def longest_gap(expression: str) -> timedelta:
    """Return the longest time between two ticks, within a day or across midnight.

    One leap year is checked. All days that have ticks have them at the same times, so one day is enough for the gaps
    within a day.
    """
    from croniter import croniter  # noqa: PLC0415 - as above

    start = datetime(2028, 1, 1, tzinfo=UTC)
    ticks = croniter(expression, start - timedelta(seconds=1))
    within = [ticks.get_next(datetime)]
    while (tick := ticks.get_next(datetime)).date() == within[0].date():
        within.append(tick)
    gaps = [later - earlier for earlier, later in pairwise(within)]
    midnight = start
    every_day = expression.split()[2:] == ["*", "*", "*"]
    while midnight < start + timedelta(days=2 if every_day else 366):
        following = croniter(expression, midnight - timedelta(seconds=1)).get_next(datetime)
        gaps.append(following - croniter(expression, midnight).get_prev(datetime))
        # There is no tick before ``following``, so the next gap across midnight begins on its day.
        midnight = following.replace(hour=0, minute=0) + timedelta(days=1)
    return max(gaps)
