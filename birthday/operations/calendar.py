"""The calendar of the coming year: how many dates fall on each day, and how large the minutes of a day are.

A day is the local date of each user. Every date of a live user counts, even if the user is suppressed or was greeted:
a calendar shows what falls on a day, and a forecast (``operations/forecast.py``) what is still to be sent.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg

from birthday.clock import Clock
from birthday.core.forecast import DeliveryRate, Forecast
from birthday.core.occasion import Rules, month_days_on, occasion_in
from birthday.errors import InvalidInputError, UnavailableError
from birthday.operations.forecast import Forecaster
from birthday.store.connection import borrow
from birthday.store.forecast import DateCount, count_dates, count_dates_by_zone
from birthday.store.planning import zones_in_use

DAYS: Final = 366
WEEK: Final = 7
FRESH: Final = timedelta(minutes=1)
"""A count that is older than this is renewed when somebody asks for it."""
KEPT: Final = timedelta(minutes=10)
"""A count that is older than this is not shown any more."""
PATIENCE_SECONDS: Final = 0.2
"""How long somebody waits for the first count. With millions of users it takes longer."""
COUNT_SECONDS: Final = 60.0
"""How long a count may take."""

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Day:
    """What falls on one local date: by instant and zone, and by occasion type."""

    on: date
    forecast: Forecast
    types: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class YearAhead:
    """How many dates fall on each of the coming days.

    ``types`` has a count for each type and date. ``week`` are the first days in full, and ``largest`` is the day with
    most dates; None if there are no dates. ``rate`` is what the largest minutes are compared with.
    """

    counted_at: datetime
    days: Sequence[date]
    types: Mapping[str, Mapping[date, int]]
    week: Sequence[Day]
    largest: Day | None
    rate: DeliveryRate | None


class Calendar:
    """Counts the coming year for one process, at most once a minute, and only if somebody asks.

    The year costs a scan of an index with an entry for each user. All who ask meanwhile share one count, and nobody
    waits for it who may see the one before.
    """

    def __init__(self, pool: asyncpg.Pool, rules: Rules, clock: Clock) -> None:
        """Take the rules that the scheduler plans with."""
        self._pool = pool
        self._rules = rules
        self._clock = clock
        self._counting: asyncio.Task[YearAhead | UnavailableError] | None = None
        self._counted: YearAhead | None = None

    async def read_year(self, patience_seconds: float = PATIENCE_SECONDS) -> YearAhead | None:
        """Return the latest count; None if the first one is not ready yet, after ``patience_seconds``.

        Raises:
            UnavailableError: if there is no count that may be shown, and the database cannot be used.
        """
        age = self._clock.now() - self._counted.counted_at if self._counted else KEPT
        if age >= FRESH and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self._count())
        if age < KEPT or self._counting is None:
            return self._counted
        await asyncio.wait({self._counting}, timeout=patience_seconds)
        counted = self._counting.result() if self._counting.done() else None
        if isinstance(counted, UnavailableError):
            raise counted
        return counted

    async def read_days(self, days: Sequence[date]) -> list[Day]:
        """Return what falls on each of ``days``, as it is now. The cost follows the number of dates on these days.

        Raises:
            UnavailableError: if the database cannot be used.
        """
        month_days = {day: month_days_on(day, self._rules.leap_day) for day in days}
        async with borrow(self._pool, COUNT_SECONDS) as connection:
            zones = await zones_in_use(connection)
            wanted = sorted({one for each in month_days.values() for one in each})
            counts = await count_dates_by_zone(connection, zones, wanted)
        found = []
        for day in days:
            found.append(self._day(day, [one for one in counts if one.month_day in month_days[day]]))
            # Instants in hundreds of zones take some milliseconds, so let other tasks run in between.
            await asyncio.sleep(0)
        return found

    def _day(self, on: date, counts: Sequence[DateCount]) -> Day:
        due: Counter[datetime] = Counter()
        zones: defaultdict[str, Counter[datetime]] = defaultdict(Counter)
        types: Counter[str] = Counter()
        unknown: set[str] = set()
        for one in counts:
            types[one.message_type] += one.users
            try:
                at = occasion_in(one.zone, on, self._rules).occasion.due_at
            except InvalidInputError:
                # Not written by this program.
                unknown.add(one.zone)
                continue
            due[at] += one.users
            zones[one.zone][at] += one.users
        begins = datetime(on.year, on.month, on.day, tzinfo=UTC)
        return Day(on, Forecast(begins, begins + _DAY, due, tuple(sorted(unknown)), zones), types)

    def _on_days(self, days: Sequence[date], by_date: Mapping[int, int]) -> Counter[date]:
        leap_day = self._rules.leap_day
        return Counter({day: sum(by_date.get(one, 0) for one in month_days_on(day, leap_day)) for day in days})

    async def _count(self) -> YearAhead | UnavailableError:
        now = self._clock.now()
        first = now.astimezone(UTC).date()
        days = [first + number * _DAY for number in range(DAYS)]
        try:
            async with borrow(self._pool, COUNT_SECONDS) as connection:
                counts = await count_dates(connection)
            types = {name: self._on_days(days, by_date) for name, by_date in counts.items()}
            total = sum(types.values(), Counter[date]())
            largest = max(days, key=lambda day: total[day])
            *week, peak = await self.read_days([*days[:WEEK], largest])
            rate = await Forecaster(self._pool, self._rules).measure_rate(now)
        except UnavailableError as error:
            return error
        self._counted = YearAhead(now, days, types, week, peak if total[largest] else None, rate)
        return self._counted
