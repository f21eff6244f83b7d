"""The loops around the steps: they only wait, call, count and log. What is done stands in the steps themselves."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog
from croniter import croniter
from prometheus_async.aio import time

from birthday.clock import CheckedClock
from birthday.errors import UnavailableError
from birthday.scheduler.dispatcher import Dispatcher
from birthday.scheduler.janitor import Janitor
from birthday.scheduler.planner import Planner
from birthday.store.connection import DATABASE_ERRORS, stay_cancelled
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

_Result = TypeVar("_Result")

POLL = timedelta(milliseconds=500)
"""The longest that the dispatcher sleeps: a message that an API process makes due at once waits no longer than this."""

AFTER_FAILURE = timedelta(seconds=2)

AUDIT = "3-59/5 * * * *"
"""When the audit refreshes its gauges: seldom, and not at the quarters of an hour, when messages fall due."""

FORECAST = "1-59/5 * * * *"
"""When the forecast is made anew: an import may have changed it. Not at the quarters of an hour either."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the jobs tick: cron expressions, in UTC."""

    plan: str
    recover: str
    retire: str


class DispatchProgress:
    """Whether the dispatcher gets anywhere: how long, in seconds, each of its ticks has failed."""

    def __init__(self) -> None:
        """Start without a failure."""
        self._failing_since: float | None = None

    @property
    def failing_seconds(self) -> float:
        """How long ago the first of the failures in a row was; 0 if the last tick did not fail."""
        return 0.0 if self._failing_since is None else asyncio.get_running_loop().time() - self._failing_since

    def note(self, *, failed: bool) -> None:
        """Remember how a tick ended."""
        if not failed:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = asyncio.get_running_loop().time()


async def run_scheduler(
    planner: Planner,
    dispatcher: Dispatcher,
    janitor: Janitor,
    schedule: Schedule,
    clock: CheckedClock,
    metrics: Metrics,
    progress: DispatchProgress,
) -> None:
    """Run every job until cancelled. Each also runs once at the start, to catch up, and none while the clock is wrong.

    The audit waits for the first plan: what has only not been planned yet is not missing.
    ``progress`` is told how dispatching goes.
    """
    async with asyncio.TaskGroup() as jobs:
        planned = asyncio.Event()

        async def plan(now: datetime) -> int:
            messages = await planner.plan_once(now)
            planned.set()
            return messages

        async def audit() -> None:
            await planned.wait()
            await _on_cron("audit", AUDIT, janitor.audit_once, clock, metrics)

        jobs.create_task(_on_cron("plan", schedule.plan, plan, clock, metrics))
        jobs.create_task(_on_cron("recover", schedule.recover, janitor.recover_once, clock, metrics))
        jobs.create_task(_on_cron("retire", schedule.retire, janitor.retire_once, clock, metrics))
        jobs.create_task(audit())
        jobs.create_task(_on_cron("forecast", FORECAST, janitor.forecast_once, clock, metrics))
        jobs.create_task(_when_due(dispatcher, clock, metrics, progress))


async def _on_cron(
    job: str, expression: str, tick: Callable[[datetime], Awaitable[object]], clock: CheckedClock, metrics: Metrics
) -> None:
    while True:
        await clock.wait_until(right=True)
        await _guarded(job, tick, clock.now(), metrics)
        # Read once: between two readings somebody may set the clock, and the wait would be as long as it was moved.
        now = clock.now()
        due: datetime = croniter(expression, now.astimezone(UTC)).get_next(datetime)
        await clock.sleep((due - now).total_seconds())


async def _when_due(dispatcher: Dispatcher, clock: CheckedClock, metrics: Metrics, progress: DispatchProgress) -> None:
    while True:
        await clock.wait_until(right=True)
        result = await _guarded("dispatch", dispatcher.dispatch_once, clock.now(), metrics)
        progress.note(failed=result is None)
        wait = POLL if result is not None else AFTER_FAILURE
        if result is not None and result.next_due_at is not None:
            wait = min(POLL, result.next_due_at - clock.now())
        await clock.sleep(max(wait.total_seconds(), 0.001))


async def _guarded(
    job: str, tick: Callable[[datetime], Awaitable[_Result]], now: datetime, metrics: Metrics
) -> _Result | None:
    try:
        result = await time(metrics.scheduler_job_duration.labels(job), tick(now))
    except Exception as error:  # noqa: BLE001 - one failed tick must not end the loop: the next one makes up for it
        stay_cancelled()
        metrics.scheduler_failures.labels(job).inc()
        expected = isinstance(error, (UnavailableError, *DATABASE_ERRORS))
        report = log.error if expected else log.exception
        report("scheduler.tick_failed", job=job, error=error)
        return None
    metrics.scheduler_last_success_time.labels(job).set(now.timestamp())
    log.debug("scheduler.tick", job=job)
    return result
