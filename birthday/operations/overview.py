"""The state of the whole installation at a glance, read in a bounded time, for everybody who looks at it."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

import asyncpg

from birthday.core.forecast import Forecast
from birthday.core.message import ON_TIME, Status
from birthday.operations.heartbeats import RUNNING_SECONDS, Differences, differences
from birthday.operations.status import AHEAD, missing_roles
from birthday.store.connection import borrow
from birthday.store.overview import (
    LATENESS,
    MOST_OF_DAY,
    DayCount,
    Reason,
    count_ahead,
    count_day,
    count_reasons,
    has_users,
)
from birthday.store.pauses import Pause, in_force, read_pauses
from birthday.store.processes import Seen, read_processes
from birthday.store.statistics import Overdue, count_overdue
from birthday.store.watermarks import PLANNED, read_watermark
from birthday.telemetry.metrics import Metrics

_SLOW_SECONDS: Final = 0.2
_WORTH: Final = 20
"""What is slow to read is kept for this many times as long as that took: reading it costs at most a twentieth."""
_ON_TIME_CLASSES: Final = LATENESS.index(ON_TIME) + 1

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Day:
    """The messages that are due on one day, UTC, by status, and the delivered ones by class of lateness."""

    statuses: Mapping[Status, int]
    lateness: Sequence[int]

    @property
    def due(self) -> int:
        """How many were counted."""
        return sum(self.statuses.values())

    @property
    def shown(self) -> int:
        """How many there are, at least if ``is_large``."""
        return min(self.due, MOST_OF_DAY)

    @property
    def is_large(self) -> bool:
        """Whether there are more than were counted."""
        return self.due > MOST_OF_DAY

    @property
    def delivered(self) -> int:
        """How many were delivered."""
        return sum(self.lateness)

    @property
    def on_time(self) -> int:
        """How many were delivered within a minute."""
        return sum(self.lateness[:_ON_TIME_CLASSES])

    @property
    def undelivered(self) -> int:
        """How many ended without a delivery."""
        return self.statuses.get(Status.FAILED, 0) + self.statuses.get(Status.EXPIRED, 0)


@dataclass(frozen=True, slots=True)
class QueueNow:
    """How many messages are ready to be consumed, and how many consumers there are."""

    ready: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Overview:
    """What is running, paused, due, overdue and failed, and what comes next. ``queue`` is None if it is away."""

    at: datetime
    running: Sequence[Seen]
    differing: Differences
    paused: Sequence[Pause]
    planned_until: datetime | None
    has_users: bool
    causes: Sequence[Reason]
    overdue: Overdue
    day: Day
    ahead: Forecast
    """What is planned for the next 24 hours."""
    queue: QueueNow | None

    @property
    def missing_roles(self) -> Sequence[str]:
        """The roles that no running process has."""
        return missing_roles(self.running)

    @property
    def failed(self) -> int:
        """How many messages failed for good: exact up to 10,000."""
        return sum(cause.messages for cause in self.causes)


class OverviewReader:
    """Reads the overview. What is costly to read is shared by all who ask within a short time."""

    def __init__(self, pool: asyncpg.Pool, metrics: Metrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._causes = _Kept(self._read_causes)
        self._overdue = _Kept(lambda now: count_overdue(pool, now))
        self._day = _Kept(self._read_day)
        self._ahead = _Kept(self._read_ahead)

    async def read(self, now: datetime) -> Overview:
        """Read it.

        Raises:
            UnavailableError: if the database cannot be used.
        """
        async with borrow(self._pool) as connection:
            running = await read_processes(connection, RUNNING_SECONDS)
            pauses = await read_pauses(connection)
            watermark = await read_watermark(connection, PLANNED)
            anybody = await has_users(connection)
        return Overview(
            now,
            running,
            differences(one.process for one in running),
            in_force(pauses),
            watermark,
            anybody,
            await self._causes.get(now),
            await self._overdue.get(now),
            await self._day.get(now),
            await self._ahead.get(now),
            self._queue(),
        )

    async def _read_causes(self, _now: datetime) -> Sequence[Reason]:
        async with borrow(self._pool) as connection:
            return await count_reasons(connection)

    async def _read_day(self, now: datetime) -> Day:
        start = now.replace(hour=0, minute=0, second=0, microsecond=0)
        async with borrow(self._pool) as connection:
            return _day(await count_day(connection, start, start + timedelta(days=1)))

    async def _read_ahead(self, now: datetime) -> Forecast:
        async with borrow(self._pool) as connection:
            return Forecast(now, now + AHEAD, await count_ahead(connection, now, now + AHEAD))

    def _queue(self) -> QueueNow | None:
        """Return what was last read in the background: counting a long queue takes long."""
        ready, consumers = self._metrics.queue_depth.value, self._metrics.consumer_count.value
        return None if ready is None or consumers is None else QueueNow(int(ready), int(consumers))


class _Kept(Generic[_Value]):
    """A value that is read again unless that is slow and was done not long ago."""

    def __init__(self, read: Callable[[datetime], Awaitable[_Value]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._value: _Value | None = None
        self._until = 0.0

    async def get(self, now: datetime) -> _Value:
        async with self._lock:
            begun = time.monotonic()
            if self._value is None or begun >= self._until:
                self._value = await self._read(now)
                ended = time.monotonic()
                took = ended - begun
                self._until = ended + (_WORTH * took if took >= _SLOW_SECONDS else 0)
            return self._value


def _day(counts: Sequence[DayCount]) -> Day:
    statuses: Counter[Status] = Counter()
    lateness = [0] * (len(LATENESS) + 1)
    for one in counts:
        statuses[one.status] += one.messages
        if one.lateness is not None:
            lateness[one.lateness] += one.messages
    return Day(statuses, lateness)
