"""Step 1, plan: turn birthdays that come up into scheduled messages.

Before: users with a birth date and a zone. After: one ``scheduled`` message for each of them whose birthday falls due
before the horizon. It works by zone, not by user: the instants of each zone in use are computed here, and one statement
a chunk materialises everybody they concern. A stored watermark says how far it has come, so that it catches up after
any downtime. What changes in between is planned with the change itself (``store/creation.py``, ``store/users.py``).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from birthday.core.occasion import ZoneOccasion, zone_occasions
from birthday.core.plan import Basis
from birthday.core.zone import data_version
from birthday.errors import InvalidInputError
from birthday.store.messages import (
    PLANNED,
    begin_sweep,
    end_sweep,
    is_planned_otherwise,
    last_scheduled,
    lock_watermark,
    move,
    note_rules,
    plan,
    read_rules,
    set_watermark,
    users_concerned,
    zones_in_use,
)
from birthday.store.refusals import Sifting
from birthday.store.users import Connection, Planning
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing

log = structlog.get_logger()

SWEEP_EVERY = timedelta(hours=1)
CHUNK = timedelta(days=1)
FARTHEST = timedelta(days=2)
"""How far another SEND_AT, another LEAP_DAY and other time-zone data may move a message, and a little more."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Materialises messages. Any number may run: each transaction holds the watermark, so one plans at a time."""

    pool: asyncpg.Pool
    metrics: Metrics
    planning: Planning
    catch_up: timedelta
    tracing: Tracing = NO_TRACING
    zone_data: str = field(default_factory=data_version)

    async def plan_once(self, now: datetime) -> int:
        """Plan everything from the watermark to the horizon, a day a transaction; return how many messages are new.

        Once an hour it starts as far back as the catch-up window instead. That finds users who were written to the
        database by other means, and whatever else fell through; what exists already is left alone. Who asks for that
        while it is under way gets another one.

        Once SEND_AT or LEAP_DAY is another one than before, or the time-zone data are newer, messages that are not due
        yet move.
        """
        with self.tracing.tick("plan"):
            return await self._plan_until_horizon(now)

    async def _plan_until_horizon(self, now: datetime) -> int:
        basis, noted = Basis(self.planning.rules, self.zone_data), await read_rules(self.pool)
        rules = str(basis)
        # With older data than another scheduler has: what that one has moved would move back and forth.
        yielding = basis.yields_to(noted)
        moving = not yielding and await is_planned_otherwise(self.pool, rules)
        begun = await begin_sweep(self.pool, now, SWEEP_EVERY)
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
                fresh = await self._plan(connection, occasions, now) if occasions else 0
                await set_watermark(connection, PLANNED, reached)
                if reached >= until:
                    moved = await self._move(connection, now, until) if moving else 0
                    if not yielding:
                        await note_rules(connection, rules, now)
                    elif noted and planned + fresh:
                        # The other one has to look at these as well.
                        await note_rules(connection, basis.beside(noted), now)
            after = reached
            planned += fresh
            self.metrics.messages_scheduled.inc(fresh)
        if begun:
            await end_sweep(self.pool, begun, now)
        if planned:
            log.info("planner.planned", messages=planned, until=until.isoformat())
        if moving:
            report = log.warning if moved else log.info
            report("planner.moved", messages=moved, rules=rules, before=noted)
        return planned

    async def _plan(self, connection: Connection, occasions: Sequence[ZoneOccasion], now: datetime) -> int:
        """Materialise what ``occasions`` ask for; users whose messages the database refuses do not hold up the rest."""
        traceparent = self.tracing.traceparent()

        async def plan_some(some: Sequence[ZoneOccasion]) -> list[int]:
            async with connection.transaction():
                return [await plan(connection, some, now, traceparent)]

        planning = Sifting("plan", occasions, plan_some)
        await planning.run()
        for occasion, _ in planning.refused:
            planning.results.append(await self._plan_each(connection, occasion, now))
        return sum(planning.results)

    async def _plan_each(self, connection: Connection, occasion: ZoneOccasion, now: datetime) -> int:
        async def plan_some(ids: Sequence[UUID]) -> list[int]:
            async with connection.transaction():
                return [await plan(connection, [occasion], now, self.tracing.traceparent(), ids)]

        planning = Sifting("plan", await users_concerned(connection, occasion), plan_some)
        await planning.run()
        for user_id, error in planning.refused:
            self.metrics.scheduler_failures.labels("plan").inc()
            on = occasion.occasion.on.isoformat()
            log.error("planner.refused", user_id=str(user_id), occasion_on=on, error=error)
        return sum(planning.results)

    async def _move(self, connection: Connection, now: datetime, until: datetime) -> int:
        """Move what is planned, wherever its new instant is: before now, or beyond what is planned."""
        last = max(until, await last_scheduled(connection) or until)
        occasions = await self._occasions(connection, now - FARTHEST, last + FARTHEST)
        return await move(connection, occasions, now)

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
