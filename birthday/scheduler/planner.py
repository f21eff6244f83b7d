"""Step 1, plan: turn birthdays and other yearly dates that come up into scheduled messages.

Before: users with dates and a zone. After: one ``scheduled`` message for each date of a planned type that falls due
before the horizon; planned are birthdays, and other types with a published template. The planner works by zone, not by
user. It computes the instants of each zone in use, and one statement for each chunk inserts the messages of all dates
concerned. A stored watermark says how far it has come, so that it catches up after any downtime. A new or changed user
is planned with the change itself (``store/creation.py``, ``store/users.py``).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from birthday.core.message import BIRTHDAY
from birthday.core.occasion import ZoneOccasion, zone_occasions
from birthday.core.plan import Basis
from birthday.core.zone import data_version
from birthday.errors import InvalidInputError
from birthday.store.connection import Connection
from birthday.store.planning import (
    is_planned_otherwise,
    last_scheduled,
    move,
    note_planned_types,
    note_rules,
    plan,
    read_rules,
    users_concerned,
    zones_in_use,
)
from birthday.store.refusals import Sifting
from birthday.store.templates import read_types
from birthday.store.users import Planning
from birthday.store.watermarks import (
    PLANNED,
    begin_sweep,
    end_sweep,
    lock_watermark,
    request_sweep,
    set_watermark,
)
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing

log = structlog.get_logger()

SWEEP_EVERY = timedelta(hours=1)
ROLLING = timedelta(hours=3)
"""For how long after a change of the rules sweeps also move messages: processes that are not restarted yet make some by
the rules of before. To check all of them in each sweep would cost four times as much as the sweep."""
CHUNK = timedelta(days=1)
FARTHEST = timedelta(days=2)
"""How far a new SEND_AT, a new LEAP_DAY and new time-zone data can move a message, with a margin. No occasion whose
local date is not over was due longer ago."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Materialises messages. Any number may run: each transaction locks the watermark, so only one plans at a time."""

    pool: asyncpg.Pool
    metrics: Metrics
    planning: Planning
    catch_up: timedelta
    tracing: Tracing = NO_TRACING
    zone_data: str = field(default_factory=data_version)

    async def plan_once(self, now: datetime) -> int:
        """Plan from the watermark to the horizon, one day for each transaction; return how many messages are new.

        Once an hour, when requested, and when a type is planned for the first time, it sweeps: it starts at the
        beginning of the catch-up window instead, and before the days that are not over anywhere. That finds users whom
        other programs have written to the database, and anything else that was missed. Existing messages stay as they
        are, and nothing is planned that is too late to be sent. If a sweep is requested while one is under way, another
        one follows.

        If SEND_AT or LEAP_DAY has changed, or the time-zone data are newer, messages that are not queued yet move, and
        once more in each sweep of the next three hours.
        """
        with self.tracing.tick("plan"):
            return await self._plan_until_horizon(now)

    async def _plan_until_horizon(self, now: datetime) -> int:
        basis, (noted, noted_at) = Basis(self.planning.rules, self.zone_data), await read_rules(self.pool)
        rules = str(basis)
        # If another scheduler has newer data, this one moves nothing: otherwise messages would move back and forth.
        yielding = basis.yields_to(noted)
        new_types = await self._note_types(now)
        begun = await begin_sweep(self.pool, now, SWEEP_EVERY)
        is_rolling = begun is not None and noted_at is not None and now - noted_at < ROLLING
        moving = not yielding and (is_rolling or await is_planned_otherwise(self.pool, rules))
        # Who becomes known today, or whose type does, is greeted now, whenever the instant of the day was.
        swept_from = now - max(self.catch_up, FARTHEST)
        late, until = now - self.catch_up, now + self.planning.horizon
        after: datetime | None = None
        planned = moved = 0
        while after is None or after < until:
            async with self.pool.acquire() as connection, connection.transaction():
                # A watermark beyond the horizon comes from a longer horizon, or from a clock that was wrong.
                watermark = min(await lock_watermark(connection, PLANNED) or now - self.catch_up, until)
                if after is None:
                    after = min(watermark, swept_from) if begun else watermark
                    # What fell due during a downtime is planned however late it is, so that it expires visibly.
                    late = min(late, watermark)
                reached = min(after + CHUNK, until)
                occasions = await self._occasions(connection, after, reached)
                fresh = await self._plan(connection, occasions, now, late) if occasions else 0
                await set_watermark(connection, PLANNED, max(reached, watermark))
                if reached >= until:
                    moved = await self._move(connection, now, until) if moving else 0
                    if not yielding:
                        await note_rules(connection, rules, now)
                    elif noted and planned + fresh:
                        # The scheduler with the newer data must check these messages as well.
                        await note_rules(connection, basis.beside(noted), now)
            after = reached
            planned += fresh
            self.metrics.messages_scheduled.inc(fresh)
        if begun:
            await end_sweep(self.pool, begun, now)
        if new_types:
            # A change of a user that was under way meanwhile may not know the type. By the next tick it is committed.
            await request_sweep(self.pool)
        if planned:
            log.info("planner.planned", messages=planned, until=until.isoformat())
        if moved or (moving and rules != noted):
            report = log.warning if moved else log.info
            report("planner.moved", messages=moved, rules=rules, before=noted)
        return planned

    async def _note_types(self, now: datetime) -> list[str]:
        """Note which types are planned, and return those that are new: they need a sweep."""
        async with self.pool.acquire() as connection, connection.transaction():
            message_types = await read_types(connection)
            others = [message_type for message_type in message_types if message_type != BIRTHDAY]
            new = await note_planned_types(connection, others, now)
            if new:
                await request_sweep(connection)
        if new:
            log.info("planner.types", planned=message_types, new=new)
        return new

    async def _plan(
        self, connection: Connection, occasions: Sequence[ZoneOccasion], now: datetime, late: datetime
    ) -> int:
        """Materialise the messages of ``occasions``. Users whose messages the database refuses do not block others."""
        traceparent = self.tracing.traceparent()

        async def plan_some(some: Sequence[ZoneOccasion]) -> list[int]:
            async with connection.transaction():
                return [await plan(connection, some, now, late, traceparent)]

        planning = Sifting("plan", occasions, plan_some)
        await planning.run()
        for occasion, _ in planning.refused:
            planning.results.append(await self._plan_each(connection, occasion, now, late))
        return sum(planning.results)

    async def _plan_each(self, connection: Connection, occasion: ZoneOccasion, now: datetime, late: datetime) -> int:
        async def plan_some(ids: Sequence[UUID]) -> list[int]:
            async with connection.transaction():
                return [await plan(connection, [occasion], now, late, self.tracing.traceparent(), ids)]

        planning = Sifting("plan", await users_concerned(connection, occasion), plan_some)
        await planning.run()
        for user_id, error in planning.refused:
            self.metrics.scheduler_failures.labels("plan").inc()
            on = occasion.occasion.on.isoformat()
            log.error("planner.refused", user_id=str(user_id), occasion_on=on, error=error)
        return sum(planning.results)

    async def _move(self, connection: Connection, now: datetime, until: datetime) -> int:
        """Move planned messages to their new instants, even if these are before now or beyond the horizon."""
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
                # Another program has written this zone. The users of all other zones must still be planned.
                self.metrics.planner_unknown_zones.inc()
                log.error("planner.unknown_zone", zone=zone, error=str(error))
            # Hundreds of zones take some milliseconds, so let other tasks run in between.
            await asyncio.sleep(0)
        return occasions
