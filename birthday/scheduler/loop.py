"""The loops around the steps: they only wait, call, count and log. What is done stands in the steps themselves."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog
from croniter import croniter

from birthday.clock import Clock
from birthday.errors import UnavailableError
from birthday.scheduler.dispatcher import Dispatcher
from birthday.scheduler.janitor import Janitor
from birthday.scheduler.planner import Planner
from birthday.store.connection import DATABASE_ERRORS
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

_Result = TypeVar("_Result")

POLL = timedelta(milliseconds=500)
"""The longest that the dispatcher sleeps: a message that an API process makes due at once waits no longer than this."""

AFTER_FAILURE = timedelta(seconds=2)

AUDIT = "3-59/5 * * * *"
"""When the audit refreshes its gauges: seldom, and not at the quarters of an hour, when messages fall due."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the jobs tick: cron expressions, in UTC."""

    plan: str
    recover: str
    retire: str


async def run_scheduler(
    planner: Planner, dispatcher: Dispatcher, janitor: Janitor, schedule: Schedule, clock: Clock, metrics: Metrics
) -> None:
    """Run every job until cancelled. Each also runs once at the start, to catch up."""
    async with asyncio.TaskGroup() as jobs:
        jobs.create_task(_on_cron("plan", schedule.plan, planner.plan_once, clock, metrics))
        jobs.create_task(_on_cron("recover", schedule.recover, janitor.recover_once, clock, metrics))
        jobs.create_task(_on_cron("retire", schedule.retire, janitor.retire_once, clock, metrics))
        jobs.create_task(_on_cron("audit", AUDIT, janitor.audit_once, clock, metrics))
        jobs.create_task(_when_due(dispatcher, clock, metrics))


async def _on_cron(
    job: str, expression: str, tick: Callable[[datetime], Awaitable[object]], clock: Clock, metrics: Metrics
) -> None:
    while True:
        now = clock.now()
        await _guarded(job, tick, now, metrics)
        due: datetime = croniter(expression, clock.now().astimezone(UTC)).get_next(datetime)
        await clock.sleep((due - clock.now()).total_seconds())


async def _when_due(dispatcher: Dispatcher, clock: Clock, metrics: Metrics) -> None:
    while True:
        result = await _guarded("dispatch", dispatcher.dispatch_once, clock.now(), metrics)
        wait = POLL if result is not None else AFTER_FAILURE
        if result is not None and result.next_due_at is not None:
            wait = min(POLL, result.next_due_at - clock.now())
        await clock.sleep(max(wait.total_seconds(), 0.001))


async def _guarded(
    job: str, tick: Callable[[datetime], Awaitable[_Result]], now: datetime, metrics: Metrics
) -> _Result | None:
    try:
        result = await tick(now)
    except Exception as error:  # noqa: BLE001 - one failed tick must not end the loop: the next one makes up for it
        metrics.scheduler_failures.labels(job).inc()
        expected = isinstance(error, (UnavailableError, *DATABASE_ERRORS))
        report = log.error if expected else log.exception
        report("scheduler.tick_failed", job=job, error=str(error))
        return None
    metrics.scheduler_last_success_time.labels(job).set(now.timestamp())
    log.debug("scheduler.tick", job=job)
    return result
