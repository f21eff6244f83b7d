"""Heartbeats: each process reports itself, and reads the reports of the others, and what operators should know.

The processes must have the same settings and the same release of the time-zone data, so these are compared here. If
they differ, the processes take turns in planning, each by its own rules.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg
import structlog

from birthday.clock import Clock
from birthday.config import Role
from birthday.errors import UnavailableError
from birthday.operations.notices import FORGOTTEN_SECONDS, Notices, limit_notices, silent_notices
from birthday.store.connection import DATABASE_ERRORS, borrow, stay_cancelled
from birthday.store.processes import Process, Seen, read_processes, report, withdraw
from birthday.store.statistics import read_limits
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

EVERY_SECONDS: Final = 5.0
RUNNING_SECONDS: Final = 60.0
"""A process that has not reported for this long does not count as running."""
LEAVE_SECONDS: Final = 1.0
"""How long a stop waits for the removal of the process's row. If that fails, other processes remove it."""

CircuitNow = Callable[[], tuple[str, str | None]]
"""Returns the state of a circuit breaker, and why it opened."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Values that should be the same in all processes: each distinct one, sorted. More than one is a difference."""

    versions: Sequence[str]
    tzdata: Sequence[str]
    settings: Mapping[str, Sequence[str]]
    """Only settings with more than one value."""


def differences(processes: Iterable[Process]) -> Differences:
    """Compare processes. Version and commit identify a build."""
    everybody = list(processes)
    names = sorted({name for one in everybody for name in one.settings})
    values = {name: sorted({one.settings.get(name, "-") for one in everybody}) for name in names}
    return Differences(
        sorted({f"{one.version} ({one.commit})" for one in everybody}),
        sorted({one.tzdata for one in everybody}),
        {name: found for name, found in values.items() if len(found) > 1},
    )


def settings_hash(settings: Mapping[str, str]) -> str:
    """Return a hash of the settings, short enough to be read aloud."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:10]


class Heartbeats:
    """Reports this process until it is cancelled, and then withdraws its report."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        process: Process,
        circuit: CircuitNow | None,
        notices: Notices,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """Take the fixed facts of this process. ``circuit`` is None if it has no worker."""
        self._pool = pool
        self._process = process
        self._circuit = circuit
        self._notices = notices
        self._metrics = metrics
        self._clock = clock
        self._known: Differences | None = None

    async def run(self) -> None:
        """Report every few seconds until cancelled. While the database is away, the metrics have gaps."""
        try:
            while True:
                try:
                    await self.beat()
                except (UnavailableError, *DATABASE_ERRORS) as error:
                    stay_cancelled()
                    self._metrics.collector_errors.labels("processes").inc()
                    self._metrics.processes.clear()
                    self._notices.update({})
                    self._metrics.timezone_data_versions.set(None)
                    log.debug("heartbeat.unavailable", error=error)
                await self._clock.sleep(EVERY_SECONDS)
        finally:
            await self._leave()

    async def beat(self) -> None:
        """Report once, read the other processes, and log the differences between them if these have changed."""
        state, reason = self._circuit() if self._circuit else (None, None)
        async with borrow(self._pool) as connection:
            await report(connection, replace(self._process, circuit=state, circuit_reason=reason))
            seen = await read_processes(connection, FORGOTTEN_SECONDS)
            limits = await read_limits(connection)
        self._notices.update(silent_notices(seen, self._clock.now()) | limit_notices(limits))
        self._show([one for one in seen if one.seconds_ago < RUNNING_SECONDS])

    def _show(self, seen: Sequence[Seen]) -> None:
        roles = Counter(role for one in seen for role in one.process.roles.split(","))
        for role in Role:
            self._metrics.processes.labels(role).set(roles[role])
        found = differences(one.process for one in seen)
        self._metrics.timezone_data_versions.set(len(found.tzdata))
        known, self._known = self._known, found
        if len(found.tzdata) > 1 and (known is None or known.tzdata != found.tzdata):
            reason = "each process computes instants with its own; install the same release of tzdata everywhere"
            log.warning("timezone_data.differs", own=self._process.tzdata, releases=found.tzdata, reason=reason)
        if found.settings and (known is None or known.settings != found.settings):
            log.warning("settings.differ", settings=found.settings, reason="they must be the same in all processes")

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_SECONDS), borrow(self._pool) as connection:
                await withdraw(connection, self._process.id)
        except (TimeoutError, UnavailableError, *DATABASE_ERRORS) as error:
            log.debug("heartbeat.not_withdrawn", error=error)
