"""The status of the whole installation, from the database alone, so that it can be read while no process runs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from birthday.config import Role
from birthday.core.forecast import Peak
from birthday.core.occasion import Rules
from birthday.operations.forecast import Forecaster
from birthday.operations.heartbeats import RUNNING_SECONDS, Differences, differences
from birthday.store.connection import borrow
from birthday.store.failed import FailedFilter, count_failed
from birthday.store.pauses import Pause, in_force, read_pauses
from birthday.store.processes import Seen, read_processes
from birthday.store.statistics import Overdue, count_overdue
from birthday.store.watermarks import PLANNED, read_watermark

AHEAD: Final = timedelta(hours=24)
"""How far ahead the next peak is searched."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What is running, what is paused, overdue or failed, and what comes next.

    ``running`` are the processes that reported within a minute, and ``differing`` is what they differ in.
    ``failed`` counts the messages that failed for good, by cause. ``planned_until`` is the planner's watermark, None
    if nothing was ever planned. ``peak`` is the minute of the next day in which most messages fall due.
    """

    at: datetime
    running: Sequence[Seen]
    differing: Differences
    paused: Sequence[Pause]
    overdue: Overdue
    failed: Mapping[str, int]
    planned_until: datetime | None
    peak: Peak | None

    @property
    def missing_roles(self) -> Sequence[str]:
        """The roles that no running process has."""
        return missing_roles(self.running)


def missing_roles(running: Iterable[Seen]) -> list[str]:
    """Return the roles that no running process has."""
    roles = {role for one in running for role in one.process.roles.split(",")}
    return [role for role in Role if role not in roles]


async def read_status(pool: asyncpg.Pool, rules: Rules, now: datetime) -> ServiceStatus:
    """Read the status from the database. The peak is computed by ``rules``."""
    async with borrow(pool) as connection:
        running = await read_processes(connection, RUNNING_SECONDS)
        pauses = await read_pauses(connection)
        watermark = await read_watermark(connection, PLANNED)
    async with borrow(pool, None) as connection:
        failed: Counter[str] = Counter()
        for group in await count_failed(connection, FailedFilter()):
            failed[group.error_type] += group.messages
    overdue = await count_overdue(pool, now)
    ahead = await Forecaster(pool, rules).forecast(now, now + AHEAD)
    return ServiceStatus(
        now,
        running,
        differences(one.process for one in running),
        in_force(pauses),
        overdue,
        failed,
        watermark,
        ahead.largest_minute(),
    )
