"""Background tasks that must not end."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from birthday.errors import UnavailableError
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.supervision import STEADY_SECONDS, Supervisor
from tests.support.clock import ManualClock
from tests.support.product import eventually, metric


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock in the hands of the test."""
    return ManualClock()


async def test_a_task_that_fails_is_counted_and_started_again(clock: ManualClock) -> None:
    """Whatever it raises, and also when it only ends; the process stays ready."""
    metrics = Metrics()
    supervisor = Supervisor(metrics, clock)
    starts = 0

    async def fail() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise KeyError("nobody has thought of it")
        if starts == 3:
            await asyncio.Event().wait()

    keeping = asyncio.create_task(supervisor.keep("pauses", fail))

    async def is_back() -> bool:
        clock.advance(timedelta(seconds=3))
        return starts == 3

    await eventually(is_back, "a third start")
    assert metric(metrics, "background_failures_total", task="pauses") == 2
    await supervisor.check()
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    assert keeping.cancelled()


@pytest.mark.slow
async def test_a_task_that_fails_again_and_again_makes_the_process_not_ready(clock: ManualClock) -> None:
    """Not at once; after ten seconds without a run that lasts."""
    supervisor = Supervisor(Metrics(), clock)

    async def fail() -> None:
        raise KeyError("still")

    keeping = asyncio.create_task(supervisor.keep("pauses", fail))

    async def is_refused() -> bool:
        clock.advance(timedelta(seconds=3))
        try:
            await supervisor.check()
        except UnavailableError as error:
            return "'pauses'" in str(error)
        return False

    began = asyncio.get_running_loop().time()
    await eventually(is_refused, "not ready", STEADY_SECONDS + 10)
    assert asyncio.get_running_loop().time() - began >= STEADY_SECONDS
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
