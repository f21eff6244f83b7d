"""The loops around the steps: they only wait, call, count and log. The steps themselves do the work."""

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
from birthday.store.connection import DATABASE_ERRORS, is_outage, stay_cancelled
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

_Result = TypeVar("_Result")

POLL = timedelta(milliseconds=500)
"""The longest sleep of the dispatcher. If an API process makes a message that is due at once, it waits at most this."""

AFTER_FAILURE = timedelta(seconds=1)
"""How soon the dispatcher tries again: this adds to every outage of the database."""

AUDIT = "3-59/5 * * * *"
"""When the audit refreshes its gauges: not at the quarters of an hour, because messages fall due then."""

FORECAST = "1-59/5 * * * *"
"""When the forecast is refreshed, because an import may have changed it. Not at the quarters of an hour either."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the jobs tick: cron expressions, in UTC."""

    plan: str
    recover: str
    retire: str


class DispatchProgress:
    """For how long, in seconds, all ticks of the dispatcher have failed."""

    def __init__(self) -> None:
        self._failing_since: float | None = None

    @property
    def failing_seconds(self) -> float:
        """Seconds since the first of the current failures in a row; 0 if the last tick did not fail."""
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
    """Run every job until cancelled. Each also runs once at the start, to catch up. None runs while the clock is wrong.

    The audit waits for the first plan, because a message that is only not planned yet is not missing. Each tick of the
    dispatcher is noted in ``progress``.
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
        # Read once: if the clock were set between two readings, the wait would be wrong by that much.
        now = clock.now()
        due: datetime = croniter(expression, now.astimezone(UTC)).get_next(datetime)
        await clock.sleep((due - now).total_seconds())


async def _when_due(dispatcher: Dispatcher, clock: CheckedClock, metrics: Metrics, progress: DispatchProgress) -> None:
    while True:
        await clock.wait_until(right=True)
        result = await _guarded("dispatch", dispatcher.dispatch_once, clock.now(), metrics)
        progress.note(failed=result is None)
        wait = POLL if result is not None else AFTER_FAILURE
        if result is not None and result.next_at is not None:
            wait = min(POLL, result.next_at - clock.now())
        await clock.sleep(max(wait.total_seconds(), 0.001))


async def _guarded(
    job: str, tick: Callable[[datetime], Awaitable[_Result]], now: datetime, metrics: Metrics
) -> _Result | None:
    try:
        result = await time(metrics.scheduler_job_duration.labels(job), tick(now))
    except Exception as error:  # noqa: BLE001 - one failed tick must not end the loop: the next one makes up for it
        stay_cancelled()
        metrics.scheduler_failures.labels(job).inc()
        _report(job, error)
        return None
    metrics.scheduler_last_success_time.labels(job).set(now.timestamp())
    log.debug("scheduler.tick", job=job)
    return result


def _report(job: str, error: Exception) -> None:
    """Log a failed tick: an outage of the database is a warning, because waiting helps. A bug has its traceback."""
    is_expected = isinstance(error, (UnavailableError, *DATABASE_ERRORS))
    reason = error.__cause__ if isinstance(error, UnavailableError) else error
    is_refused = isinstance(reason, DATABASE_ERRORS) and not is_outage(reason)
    of_the_queue = isinstance(error, UnavailableError) and error.resource == "queue"
    report = log.exception if not is_expected else log.error if is_refused or of_the_queue else log.warning
    report("scheduler.tick_failed", job=job, error=error)
