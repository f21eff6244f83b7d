"""Whose day it is on a date, zone by zone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple
from uuid import UUID

from birthday.core.dates import years_since
from birthday.core.message import BIRTHDAY, Status
from birthday.core.occasion import Rules, ZoneOccasion, occasion_in
from birthday.errors import InvalidInputError
from birthday.store.connection import Connection
from birthday.store.occasions import OCCASIONS_SECONDS, Celebrated, CelebratedDate, count_by_zone, list_celebrated
from birthday.store.planning import read_planned_types, zones_in_use

SECONDS: Final = 2 * OCCASIONS_SECONDS


class Position(NamedTuple):
    """Where an occasion stands in the list."""

    zone: str
    user_id: UUID
    message_type: str


FIRST: Final = Position("", UUID(int=0), "")
"""The position before any occasion."""


@dataclass(frozen=True, slots=True)
class UserOccasion:
    """The occasion of one user. ``due_at`` is None if no message was or will be sent for it."""

    user_id: UUID
    first_name: str
    last_name: str
    message_type: str
    years: int | None
    timezone: str
    date: date
    due_at: datetime | None
    message_id: UUID | None
    status: Status | None

    @property
    def position(self) -> Position:
        """Where it stands in the list."""
        return Position(self.timezone, self.user_id, self.message_type)


@dataclass(frozen=True, slots=True)
class ZoneCount:
    """How many occasions there are in a zone, and when messages for them are due."""

    timezone: str
    date: date
    due_at: datetime
    occasions: int


async def list_occasions(
    connection: Connection, day: date, message_type: str | None, rules: Rules, after: Position, limit: int
) -> tuple[list[UserOccasion], list[ZoneCount] | None]:
    """Return up to ``limit`` occasions of ``day`` in order of zone and user; on the first page also all counts.

    Without ``message_type`` all types count that are planned.
    """
    planned = {BIRTHDAY, *await read_planned_types(connection)}
    zones = _occasions(await zones_in_use(connection), day, rules, after.zone)
    if not zones:
        return [], [] if after == FIRST else None
    month_days = next(iter(zones.values())).month_days
    celebrated = Celebrated(sorted(planned) if message_type is None else [message_type], month_days, day.year)
    counts = await count_by_zone(connection, list(zones), celebrated, None if after == FIRST else limit)
    chosen = _enough([zone for zone in zones if zone in counts], counts, after.zone, limit)
    resumed = chosen and chosen[0] == after.zone
    found = await list_celebrated(
        connection, chosen, celebrated, (after.user_id, after.message_type) if resumed else (UUID(int=0), ""), limit
    )
    page = [_user_occasion(one, zones[one.zone], one.message_type in planned) for one in found]
    if after != FIRST:
        return page, None
    return page, [
        ZoneCount(zone, of.occasion.on, of.occasion.due_at, counts[zone])
        for zone, of in zones.items()
        if zone in counts
    ]


def _occasions(zones: Sequence[str], day: date, rules: Rules, first: str) -> dict[str, ZoneOccasion]:
    """Return the occasion of each zone from ``first`` on, in order; not of what another program wrote as a zone."""
    found: dict[str, ZoneOccasion] = {}
    for zone in sorted(zones):
        if zone >= first:
            try:
                found[zone] = occasion_in(zone, day, rules)
            except InvalidInputError:
                continue
    return found


def _enough(zones: Sequence[str], counts: dict[str, int], resumed: str, limit: int) -> list[str]:
    """Return as many zones as fill a page. How much is left of the one that is ``resumed`` is not known."""
    chosen: list[str] = []
    total = 0
    for zone in zones:
        if total >= limit:
            break
        chosen.append(zone)
        total += 0 if zone == resumed else counts[zone]
    return chosen


def _user_occasion(one: CelebratedDate, of: ZoneOccasion, is_planned: bool) -> UserOccasion:  # noqa: FBT001 - private
    occasion = of.occasion
    due_at = one.scheduled_at
    will_be = is_planned and not one.suppressed and one.greeted_year < occasion.year
    if due_at is None and will_be and not occasion.is_over(one.schedule_from):
        due_at = occasion.due_for(one.schedule_from)
    return UserOccasion(
        one.user_id,
        one.first_name,
        one.last_name,
        one.message_type,
        years_since(one.date, occasion.year),
        one.zone,
        occasion.on,
        due_at,
        one.message_id,
        None if one.status is None else Status(one.status),
    )
