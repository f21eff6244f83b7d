"""Guards against a wrong clock: each process compares its clock with the database's, and stops work if they differ.

The comparison is one round trip every two seconds. If the clock is set in between, the next use of it notices without a
query, because it has moved against the monotonic clock. The guard cannot tell which of the two clocks is wrong.
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
    """Read both clocks. The database reads its own at some moment of the round trip; the result allows for that."""
    async with borrow(pool) as connection:
        began, now = monotonic(), clock.now()
        theirs = await read_clock(connection)
        half = (monotonic() - began) / 2
    ahead = (now - theirs).total_seconds() + half
    return Comparison(math.copysign(max(abs(ahead) - half, 0), ahead), now.timestamp() - began)


def describe_fault(ahead_seconds: float) -> str | None:
    """Describe the fault of a clock that is so far ahead of the database's; None if the difference is accepted."""
    if abs(ahead_seconds) <= TOLERANCE_SECONDS:
        return None
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    return (
        # No apostrophes: text between two of them is masked for clients without a key.
        f"the clock of this host is {abs(ahead_seconds):,.1f} s {direction} that of the database, and "
        f"{TOLERANCE_SECONDS:g} s are accepted: nothing is planned, sent, expired or removed until they agree"
    )


async def require_right_clock(pool: asyncpg.Pool, clock: Clock) -> None:
    """Check the clock before a command that writes the current time.

    Raises:
        WrongClockError: if the clock differs too much from the database's.
    """
    fault = describe_fault((await compare_clocks(pool, clock)).ahead_seconds)
    if fault is not None:
        raise WrongClockError(fault)


class ClockGuard:
    """The clock of a process, and whether it is right. ``compare`` it before the first use, then ``watch``.

    While the clock is wrong, ``now`` continues from the last right time by the monotonic clock, so that messages in
    flight are settled with the right time.
    """

    def __init__(
        self, clock: Clock, pool: asyncpg.Pool, metrics: Metrics, monotonic: _Monotonic = time.monotonic
    ) -> None:
        """Keep the arguments. A clock that was never compared counts as wrong."""
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
        """Why work that depends on the time must not run now; None if the clock is right."""
        if self._last is None:
            return "the clock of this host has not been compared with that of the database yet"
        return describe_fault(self._ahead(self._last, self._clock.now()))

    def now(self) -> datetime:
        """Return the current instant. If the clock has become wrong, return what a right clock would show."""
        now = self._clock.now()
        if self._last is None or self._right_origin is None or abs(self._ahead(self._last, now)) <= TOLERANCE_SECONDS:
            return now
        return datetime.fromtimestamp(self._right_origin + self._monotonic(), UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of the clock's time."""
        await self._clock.sleep(seconds)

    async def wait_until(self, *, right: bool) -> None:
        """Return as soon as the clock is right or, if ``right`` is false, wrong."""
        async with self._changed:
            await self._changed.wait_for(lambda: (self.fault is None) is right)

    async def watch(self) -> None:
        """Compare regularly until cancelled. While the database is away, the last comparison holds."""
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
        """Compare once. If the clock has become wrong or right, log it; wake all who wait for a change."""
        self._last = await compare_clocks(self._pool, self._clock, self._monotonic)
        self._metrics.clock_skew_seconds.set(self._last.ahead_seconds)
        if describe_fault(self._last.ahead_seconds) is None:
            self._right_origin = self._last.origin
        await self._tell()

    def _ahead(self, last: Comparison, now: datetime) -> float:
        """Return how many seconds the clock is ahead: by the last comparison, plus how far it was set since then."""
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
