"""Step 1, plan: turn birthdays that come up into scheduled messages.

Before: users with a birth date and a zone. After: one ``scheduled`` message for each of them whose birthday falls due
before the horizon. It works by zone, not by user: the instants of each zone in use are computed here, and one statement
a chunk materialises everybody they concern. A stored watermark says how far it has come, so that it catches up after
any downtime. What changes in between is planned with the change itself (``store/creation.py``, ``store/users.py``).
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
import structlog

from birthday.core.occasion import ZoneOccasion, zone_occasions
from birthday.errors import InvalidInputError
from birthday.store.messages import (
    PLANNED,
    begin_sweep,
    end_sweep,
    lock_watermark,
    move,
    plan,
    set_watermark,
    zones_in_use,
)
from birthday.store.users import Connection, Planning
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing

log = structlog.get_logger()

SWEEP_EVERY = timedelta(hours=1)
CHUNK = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Planner:
    """Materialises messages. Any number may run: each transaction holds the watermark, so one plans at a time."""

    pool: asyncpg.Pool
    metrics: Metrics
    planning: Planning
    catch_up: timedelta
    tracing: Tracing = NO_TRACING

    async def plan_once(self, now: datetime, *, sweep: bool = False) -> int:
        """Plan everything from the watermark to the horizon, a day a transaction; return how many messages are new.

        Once an hour, and with ``sweep``, it starts as far back as the catch-up window instead. That finds users who
        were written to the database by other means, and whatever else fell through. What exists already is left alone,
        but for messages that are not due yet and for which SEND_AT or LEAP_DAY now say something else: these move. Who
        asks for a sweep while one is under way gets another one.
        """
        with self.tracing.tick("plan"):
            return await self._plan_until_horizon(now, sweep=sweep)

    async def _plan_until_horizon(self, now: datetime, *, sweep: bool) -> int:
        begun = await begin_sweep(self.pool, now, SWEEP_EVERY, at_once=sweep)
        until = now + self.planning.horizon
        after: datetime | None = None
        planned = moved = 0
        while after is None or after < until:
            async with self.pool.acquire() as connection, connection.transaction():
                # One that lies ahead comes from a longer horizon, or from a clock that was wrong.
                watermark = min(await lock_watermark(connection, PLANNED) or now - self.catch_up, until)
                if after is None:
                    after = min(watermark, now - self.catch_up) if begun else watermark
                reached = min(after + CHUNK, until)
                occasions = await self._occasions(connection, after, reached)
                fresh = await plan(connection, occasions, now, self.tracing.traceparent()) if occasions else 0
                moved += await move(connection, occasions, now) if occasions and begun else 0
                await set_watermark(connection, PLANNED, reached)
            after = reached
            planned += fresh
            self.metrics.messages_scheduled.inc(fresh)
        if begun:
            await end_sweep(self.pool, begun, now)
        if planned:
            log.info("planner.planned", messages=planned, until=until.isoformat())
        if moved:
            log.warning(
                "planner.moved", messages=moved, reason="SEND_AT or LEAP_DAY is not what they were planned with"
            )
        return planned

    async def _occasions(self, connection: Connection, after: datetime, until: datetime) -> list[ZoneOccasion]:
        if after >= until:
            return []
        occasions: list[ZoneOccasion] = []
        for zone in await zones_in_use(connection):
            try:
                occasions += zone_occasions(zone, after, until, self.planning.rules)
            except InvalidInputError as error:
                # Written by other means than ours. It must not keep everybody else from being planned.
                self.metrics.planner_unknown_zones.inc()
                log.error("planner.unknown_zone", zone=zone, error=str(error))
            # Hundreds of zones take some milliseconds: others may run in between.
            await asyncio.sleep(0)
        return occasions
