"""What holds the event loop up: measured all the time, and named in the debug mode."""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
import structlog

from birthday.errors import UnavailableError
from birthday.telemetry.blocking import named_blocking
from birthday.telemetry.garbage import frozen_start, measured_collections
from birthday.telemetry.loop_lag import LoopWatch
from birthday.telemetry.metrics import Metrics
from tests.support.product import eventually, metric

LONG = 0.06
SOME_JSON = orjson.dumps([{"name": f"number {number}", "values": list(range(30))} for number in range(60_000)])


def block() -> None:
    """Hold the loop up without computing."""
    threading.Event().wait(LONG)


def compute() -> None:
    """Hold the loop up with Python."""
    until = time.thread_time() + LONG
    while time.thread_time() < until:
        pass


def parse_much() -> None:
    """Hold the loop up in one call that does not let go of the interpreter."""
    orjson.loads(SOME_JSON)


@contextmanager
def blocked_events() -> Iterator[list[Any]]:
    """Run the debug mode, and collect what it reports."""
    with structlog.testing.capture_logs() as events, named_blocking(asyncio.get_running_loop()):
        yield events


def named(events: list[Any], function: str) -> list[Any]:
    """Return the reports in whose stack a function stands."""
    return [event for event in events if any(f".{function}:" in place for place in event["frames"])]


@pytest.mark.parametrize("culprit", [block, compute, parse_much])
async def test_a_call_that_blocks_is_named(culprit: Callable[[], None]) -> None:
    """Whether it waits, computes, or is in one call of C: the report says which function it was, and how long."""
    what = "seconds" if culprit is block else "cpu_seconds"
    with blocked_events() as events:

        def seen() -> list[Any]:
            return [event for event in named(events, culprit.__name__) if event[what] >= 0.02]

        async def is_named() -> bool:
            # Again and again: on a busy machine, the thread that looks may come too late for one call, or see only a
            # part of it.
            asyncio.get_running_loop().call_soon(culprit)
            return bool(seen())

        await eventually(is_named, f"a report of {culprit.__name__}")
    event = seen()[0]
    assert event["event"] == "event_loop.blocked"
    assert event["log_level"] == "warning"
    assert event["seconds"] > 0.01
    assert (event["cpu_seconds"] < 0.02) is (culprit is block)


async def test_a_step_of_a_task_is_named_with_its_callers() -> None:
    """The stack goes from the innermost function to the task."""

    async def outer() -> None:
        await inner()

    async def inner() -> None:
        block()

    with blocked_events() as events:
        await asyncio.create_task(outer())
        await eventually(lambda: _is_there(named(events, "block")), "a report")
    [event] = named(events, "block")
    names = [place.rpartition(":")[0].rpartition(".")[2] for place in event["frames"]]
    assert names[-3:] == ["block", "inner", "outer"]


async def test_many_short_steps_are_no_block() -> None:
    """What several callbacks take together, or one in several turns, is no call that blocks."""

    async def step() -> None:
        until = time.thread_time() + 0.001
        while time.thread_time() < until:
            pass

    with blocked_events() as events:
        for _ in range(100):
            await asyncio.gather(*(step() for _ in range(3)))
    # A machine that is busy may stop one step for a while: that is no computing of its own.
    assert [event for event in named(events, "step") if event["cpu_seconds"] >= 0.005] == []


async def test_the_lag_is_measured() -> None:
    """A call that blocks shows in the gauge, and in the histogram, as long as it took."""
    metrics = Metrics()
    watching = asyncio.create_task(LoopWatch(metrics).run())

    async def has_run() -> bool:
        return metric(metrics, "event_loop_delay_seconds_count") >= 1

    await eventually(has_run, "a measurement")
    threading.Event().wait(0.3)
    await eventually(lambda: _is_there([metric(metrics, "event_loop_lag_seconds") > 0.15]), "a lag")
    watching.cancel()
    assert metric(metrics, "event_loop_delay_seconds_sum") > 0.15


async def test_a_standstill_is_told_afterwards() -> None:
    """A check fails for a while after a process was frozen, and says for how long; the log has it as well."""
    watch = LoopWatch(Metrics(), patience=0.2)
    with structlog.testing.capture_logs() as events:
        watching = asyncio.create_task(watch.run())
        await asyncio.sleep(0)
        await watch.check()
        threading.Event().wait(0.6)
        await eventually(lambda: _is_there(events), "it is logged")
        watching.cancel()
    assert [event["event"] for event in events] == ["process.stood_still"]
    with pytest.raises(UnavailableError, match=r"the process stood still for [01] s, until 0 s ago"):
        await watch.check()


def test_collections_are_measured_by_generation() -> None:
    """A collection within the context counts, one after it does not."""
    metrics = Metrics()
    with measured_collections(metrics):
        gc.collect(1)
        gc.collect(2)
    gc.collect(2)
    assert metric(metrics, "gc_pause_seconds_count", generation="1") == 1
    assert metric(metrics, "gc_pause_seconds_count", generation="2") == 1
    assert metric(metrics, "gc_pause_seconds_sum", generation="2") > 0


def test_what_exists_at_the_start_is_not_collected_again() -> None:
    """It is frozen for as long as the service runs."""
    with frozen_start():
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


def _is_there(found: list[Any]) -> Awaitable[bool]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(bool(found) and all(bool(one) for one in found))
    return future
