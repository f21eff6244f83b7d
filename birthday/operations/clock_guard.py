"""A wrong clock does nothing: each process compares its clock with the database's, and holds its work if they differ.

The comparison is one round trip every two seconds. In between, a clock that is set is noticed at the next look at it,
without asking anybody: it moves against the monotonic clock. Nobody can tell here which of the two clocks is wrong.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import asyncpg
import structlog

from birthday.clock import Clock
from birthday.errors import UnavailableError, WrongClockError
from birthday.store.connection import DATABASE_ERRORS, borrow, read_clock, stay_cancelled
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

TOLERANCE_SECONDS: Final = 5.0
EVERY_SECONDS: Final = 2.0

_Monotonic = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a clock is ahead of the database's, negative if behind, beyond what the round trip explains.

    ``origin`` is what the clock showed, in Unix time, when the monotonic clock was 0: it changes if the clock is set.
    """

    ahead_seconds: float
    origin: float


async def compare_clocks(pool: asyncpg.Pool, clock: Clock, monotonic: _Monotonic = time.monotonic) -> Comparison:
    """Read both clocks. The database's was read some time within the round trip, which is allowed for.

    Raises:
        UnavailableError: if the database cannot be asked.
    """
    async with borrow(pool) as connection:
        began, now = monotonic(), clock.now()
        theirs = await read_clock(connection)
        half = (monotonic() - began) / 2
    ahead = (now - theirs).total_seconds() + half
    return Comparison(math.copysign(max(abs(ahead) - half, 0), ahead), now.timestamp() - began)


def describe_fault(ahead_seconds: float) -> str | None:
    """Say what is wrong with a clock that is so far ahead of the database's; None if that is accepted."""
    if abs(ahead_seconds) <= TOLERANCE_SECONDS:
        return None
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return (
        # Without apostrophes: what stands between two of them is masked for who has no key.
        f"the clock of this host is {abs(ahead_seconds):,.1f} s {direction} that of the database, and "
        f"{TOLERANCE_SECONDS:g} s are accepted: nothing is planned, sent, expired or removed until they agree"
    )


async def require_right_clock(pool: asyncpg.Pool, clock: Clock) -> None:
    """Make sure that a command which writes what time it is may do so.

    Raises:
        WrongClockError: if the clock is not the database's.
        UnavailableError: if the database cannot be asked.
    """
    fault = describe_fault((await compare_clocks(pool, clock)).ahead_seconds)
    if fault is not None:
        raise WrongClockError(fault)


class ClockGuard:
    """The clock of a process, with a verdict on it. ``compare`` it before the first use, then ``watch``.

    While it is wrong, ``now`` goes on from when it was right: what is in flight is settled at an instant that is right.
    """

    def __init__(
        self, clock: Clock, pool: asyncpg.Pool, metrics: Metrics, monotonic: _Monotonic = time.monotonic
    ) -> None:
        """Keep what is passed in. A clock that has never been compared is not right."""
        self._clock = clock
        self._pool = pool
        self._metrics = metrics
        self._monotonic = monotonic
        self._last: Comparison | None = None
        self._right_origin: float | None = None
        self._was_right = True
        self._changed = asyncio.Condition()

    @property
    def fault(self) -> str | None:
        """Why nothing that time decides may be done now; None if the clock is right."""
        if self._last is None:
            return "the clock of this host has not been compared with that of the database yet"
        return describe_fault(self._ahead(self._last, self._clock.now()))

    def now(self) -> datetime:
        """Return the current instant; with a clock that has become wrong, what it would show if it had stayed right."""
        now = self._clock.now()
        if self._last is None or self._right_origin is None or abs(self._ahead(self._last, now)) <= TOLERANCE_SECONDS:
            return now
        return datetime.fromtimestamp(self._right_origin + self._monotonic(), UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of the clock's time."""
        await self._clock.sleep(seconds)

    async def wait_until(self, *, right: bool) -> None:
        """Return as soon as the clock is right, or is not."""
        async with self._changed:
            await self._changed.wait_for(lambda: (self.fault is None) is right)

    async def watch(self) -> None:
        """Compare again and again until cancelled. While the database is away, the last comparison holds."""
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            try:
                await self.compare()
            except (UnavailableError, *DATABASE_ERRORS) as error:
                stay_cancelled()
                self._metrics.collector_errors.labels("clock").inc()
                self._metrics.clock_skew_seconds.set(None)
                log.debug("clock.not_compared", error=error)
                await self._tell()

    async def compare(self) -> None:
        """Ask the database once; log and count what has changed, and wake whom it concerns.

        Raises:
            UnavailableError: if the database cannot be asked.
        """
        self._last = await compare_clocks(self._pool, self._clock, self._monotonic)
        self._metrics.clock_skew_seconds.set(self._last.ahead_seconds)
        if describe_fault(self._last.ahead_seconds) is None:
            self._right_origin = self._last.origin
        await self._tell()

    def _ahead(self, last: Comparison, now: datetime) -> float:
        """Return how far the clock is ahead by now: as of the last comparison, and moved by whoever has set it."""
        return last.ahead_seconds + now.timestamp() - self._monotonic() - last.origin

    async def _tell(self) -> None:
        fault = self.fault
        if fault is not None and self._was_right:
            self._metrics.clock_faults.inc()
            log.error("clock.wrong", reason=fault)
        elif fault is None and not self._was_right:
            log.info("clock.right_again")
        self._was_right = fault is None
        async with self._changed:
            self._changed.notify_all()
