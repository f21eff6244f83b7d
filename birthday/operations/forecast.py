"""Forecasts a range: by zone, as the planner works, and one day at a time."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from birthday.core.forecast import DeliveryRate, Forecast
from birthday.core.occasion import Rules, ZoneOccasion, zone_occasions
from birthday.errors import InvalidInputError
from birthday.store.connection import borrow
from birthday.store.forecast import count_due, read_burst_rate, read_sustained_rate
from birthday.store.planning import zones_in_use

_DAY = timedelta(days=1)

MEASURED_OVER = timedelta(days=7)
"""How far back the delivery rate is measured. Older rates may mislead, because there may be fewer workers now."""


@dataclass(frozen=True, slots=True)
class Forecaster:
    """Forecasts for one installation. ``rules`` are those that its processes run with."""

    pool: asyncpg.Pool
    rules: Rules

    async def forecast(self, from_at: datetime, to_at: datetime) -> Forecast:
        """Return what falls due in ``(from_at, to_at]``. Each day is read by a statement of its own."""
        async with borrow(self.pool, None) as connection:
            zones = await zones_in_use(connection)
        due: Counter[datetime] = Counter()
        by_zone: dict[str, Counter[datetime]] = {}
        unknown: set[str] = set()
        after = from_at
        while after < to_at:
            until = min(after + _DAY, to_at)
            occasions: list[ZoneOccasion] = []
            for zone in zones:
                try:
                    occasions += zone_occasions(zone, after, until, self.rules)
                except InvalidInputError:
                    # Not written by this program.
                    unknown.add(zone)
                # Hundreds of zones take some milliseconds, so let other tasks run in between.
                await asyncio.sleep(0)
            async with borrow(self.pool, None) as connection:
                for zone, at, messages in await count_due(connection, occasions, after, until):
                    due[at] += messages
                    by_zone.setdefault(zone, Counter())[at] += messages
            after = until
        return Forecast(from_at, to_at, due, tuple(sorted(unknown)), by_zone)

    async def measure_rate(self, now: datetime) -> DeliveryRate | None:
        """Return the best rate of deliveries in the last days that lasted for a minute; None without enough data.

        If no burst lasted for a minute, return the rate of the fastest burst, which is marked as not sustained.
        """
        async with borrow(self.pool, None) as connection:
            since = now - MEASURED_OVER
            return await read_sustained_rate(connection, since, now) or await read_burst_rate(connection, since, now)
