"""Who is greeted today, each in the user's own zone: a user's today is the date that it is there now."""

from collections.abc import Sequence
from datetime import date, datetime

from birthday.core.occasion import Rules, occasion_on
from birthday.core.zone import load_zone
from birthday.errors import InvalidInputError
from birthday.store.connection import Connection
from birthday.store.planning import zones_in_use
from birthday.store.today import Day


async def read_day(connection: Connection, now: datetime, rules: Rules) -> Day:
    """Return what today is in each zone in use."""
    return day_of(await zones_in_use(connection), now, rules)


def day_of(zones: Sequence[str], now: datetime, rules: Rules) -> Day:
    """Return what today is in each zone. Messages for it are due at SEND_AT, or at once for who is new today."""
    dates: dict[str, date] = {}
    due = [now]
    for name in zones:
        try:
            zone = load_zone(name)
        except InvalidInputError:
            # Another program has written what is no zone.
            continue
        dates[name] = now.astimezone(zone).date()
        due.append(occasion_on(zone, dates[name], rules.send_at).due_at)
    return Day(dates, min(due), max(due))
