"""The forecast of a range: by zone, as the planner works, and a day at a time."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from birthday.core.forecast import DeliveryRate, Forecast
from birthday.core.occasion import Rules, ZoneOccasion, zone_occasions
from birthday.errors import InvalidInputError
from birthday.store.connection import borrow
from birthday.store.forecast import count_due, read_delivery_rate
from birthday.store.messages import zones_in_use

_DAY = timedelta(days=1)

MEASURED_OVER = timedelta(days=7)
"""How far back the delivery rate is looked for: what was fast enough longer ago may run with fewer workers now."""


@dataclass(frozen=True, slots=True)
class Forecaster:
    """Looks ahead for one installation. ``rules`` are those that its processes run with."""

    pool: asyncpg.Pool
    rules: Rules

    async def forecast(self, from_at: datetime, to_at: datetime) -> Forecast:
        """Return what falls due in ``(from_at, to_at]``. Each day is read by a statement of its own.

        Raises:
            UnavailableError: if the database cannot be read to the end.
        """
        async with borrow(self.pool, None) as connection:
            zones = await zones_in_use(connection)
        due: dict[datetime, int] = {}
        unknown: set[str] = set()
        after = from_at
        while after < to_at:
            until = min(after + _DAY, to_at)
            occasions: list[ZoneOccasion] = []
            for zone in zones:
                try:
                    occasions += zone_occasions(zone, after, until, self.rules)
                except InvalidInputError:
                    # Written by other means than ours.
                    unknown.add(zone)
                # Hundreds of zones take some milliseconds: others may run in between.
                await asyncio.sleep(0)
            async with borrow(self.pool, None) as connection:
                due |= await count_due(connection, occasions, after, until)
            after = until
        return Forecast(from_at, to_at, due, tuple(sorted(unknown)))

    async def measure_rate(self, now: datetime) -> DeliveryRate | None:
        """Return how fast the best burst of the last days was delivered; None if there was none.

        Raises:
            UnavailableError: if the database cannot be read.
        """
        async with borrow(self.pool, None) as connection:
            return await read_delivery_rate(connection, now - MEASURED_OVER, now)
