"""The watch over the clock: when it is right, when it is not, and what ``now`` is then."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from birthday.errors import WrongClockError
from birthday.operations.clock_guard import EVERY_SECONDS, ClockGuard, require_right_clock
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.product import metric


class Host:
    """A host with two clocks: of the wall, which can be set, and one that only runs."""

    def __init__(self, start: datetime) -> None:
        """Let the wall show ``start``."""
        self.wall = ManualClock(start)
        self.uptime_seconds = 1000.0

    def run(self, by: timedelta) -> None:
        """Let time pass."""
        self.wall.advance(by)
        self.uptime_seconds += by.total_seconds()

    def set(self, by: timedelta) -> None:
        """Set the clock of the wall."""
        self.wall.advance(by)


@pytest.fixture
async def host(pool: asyncpg.Pool) -> Host:
    """A host whose clock is the database's."""
    return Host(await pool.fetchval("SELECT clock_timestamp()"))


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of one process."""
    return Metrics()


@pytest.fixture
def guard(host: Host, pool: asyncpg.Pool, metrics: Metrics) -> ClockGuard:
    """A guard that has not compared anything yet."""
    return ClockGuard(host.wall, pool, metrics, lambda: host.uptime_seconds)


@pytest.fixture
async def watched(guard: ClockGuard) -> AsyncIterator[ClockGuard]:
    """The guard while it watches."""
    watching = asyncio.create_task(guard.watch())
    yield guard
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def test_a_clock_that_was_never_compared_is_not_right(guard: ClockGuard) -> None:
    """Nothing begins before the first comparison."""
    assert "not been compared" in (guard.fault or "")


@pytest.mark.parametrize("seconds", [-4.5, 0, 4.5])
async def test_a_small_difference_is_accepted(host: Host, guard: ClockGuard, metrics: Metrics, seconds: float) -> None:
    """Up to five seconds, in either direction; the metric shows it all the same."""
    host.set(timedelta(seconds=seconds))
    await guard.compare()
    assert guard.fault is None
    assert metric(metrics, "clock_skew_seconds") == pytest.approx(seconds, abs=0.4)
    assert metric(metrics, "clock_faults_total") == 0


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (timedelta(seconds=6), "s ahead of that of the database"),
        (timedelta(days=3), "s ahead of that of the database"),
        (-timedelta(seconds=6), "s behind that of the database"),
        (-timedelta(days=400), "s behind that of the database"),
    ],
)
async def test_a_wrong_clock_is_a_fault(
    host: Host, guard: ClockGuard, metrics: Metrics, difference: timedelta, words: str
) -> None:
    """From the first comparison on, which counts it once, however often it is found again."""
    host.set(difference)
    await guard.compare()
    await guard.compare()
    assert words in (guard.fault or "")
    assert metric(metrics, "clock_skew_seconds") == pytest.approx(difference.total_seconds(), abs=0.5)
    assert metric(metrics, "clock_faults_total") == 1


async def test_a_clock_that_is_set_is_wrong_at_once(host: Host, guard: ClockGuard) -> None:
    """Without asking the database again; and right again as soon as it is set back."""
    await guard.compare()
    host.set(timedelta(hours=1))
    assert re.search(r"(3,599|3,600)\.\d s ahead", guard.fault or "")
    host.set(-timedelta(hours=1))
    assert guard.fault is None


async def test_a_clock_that_only_runs_stays_right(host: Host, guard: ClockGuard) -> None:
    """Time that passes on both clocks of the host is no difference."""
    await guard.compare()
    host.run(timedelta(days=2))
    assert guard.fault is None


async def test_what_is_in_flight_goes_on_by_the_time_that_was_right(host: Host, guard: ClockGuard) -> None:
    """A clock that is set three days ahead does not move a retry by three days."""
    await guard.compare()
    right = host.wall.now()
    host.set(timedelta(days=3))
    host.run(timedelta(seconds=10))
    await guard.compare()
    assert guard.fault is not None
    assert guard.now() == pytest.approx(right + timedelta(seconds=10), abs=timedelta(milliseconds=1))


async def test_a_process_that_began_with_a_wrong_clock_has_no_better_one(host: Host, guard: ClockGuard) -> None:
    """It shows what its host shows: there was no instant at which it was right."""
    host.set(timedelta(days=3))
    await guard.compare()
    assert guard.now() == host.wall.now()


async def test_whoever_waits_for_a_right_clock_goes_on_with_the_next_comparison(
    host: Host, watched: ClockGuard
) -> None:
    """The watch compares every two seconds, and wakes whom it concerns."""
    host.set(timedelta(minutes=5))
    await watched.compare()
    waiting = asyncio.create_task(watched.wait_until(right=True))
    host.set(-timedelta(minutes=5))
    await host.wall.wait_for_sleepers()
    host.run(timedelta(seconds=EVERY_SECONDS))
    async with asyncio.timeout(60):
        await waiting


async def test_a_clock_that_is_set_is_told_of_although_the_database_is_away(
    host: Host, watched: ClockGuard, pool: asyncpg.Pool, metrics: Metrics
) -> None:
    """The watch goes on without it; the difference is a gap then, not the last one."""
    await watched.compare()
    waiting = asyncio.create_task(watched.wait_until(right=False))
    await host.wall.wait_for_sleepers()
    await pool.close()
    host.set(timedelta(minutes=5))
    async with asyncio.timeout(60):
        await waiting
    assert metric(metrics, "clock_faults_total") == 1
    assert metrics.registry.get_sample_value("birthday_scheduler_clock_skew_seconds") is None
    assert metric(metrics, "collector_errors_total", collector="clock") == 1


async def test_a_command_that_writes_the_time_refuses_a_wrong_clock(pool: asyncpg.Pool) -> None:
    """It says by how much, so that the operator need not look for it."""
    with pytest.raises(WrongClockError, match="behind that of the database"):
        await require_right_clock(pool, ManualClock(datetime(2001, 1, 1, tzinfo=UTC)))
