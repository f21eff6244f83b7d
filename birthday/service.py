"""The composition root: opens what the roles share, starts the chosen ones, and drains them.

Read ``serve`` from top to bottom: it is the program. Everything that is opened here is closed here, in reverse order.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from random import Random
from typing import TextIO

import asyncpg
import structlog

from birthday.broker import Broker
from birthday.channels import Channel
from birthday.channels.breaker import Cause, CircuitBreaker
from birthday.clock import CheckedClock, Clock
from birthday.config import Role, Settings
from birthday.core.message import BIRTHDAY
from birthday.errors import BirthdayError, UnavailableError, WrongClockError
from birthday.http.app import build
from birthday.http.context import ApiContext
from birthday.http.probes.readiness import BACKGROUND, CLOCK, CONSUMER, QUEUE, SCHEDULER, SENDING, Check, Readiness
from birthday.http.server import GRACE
from birthday.http.server import serve as serve_http
from birthday.operations.audit import Auditor
from birthday.operations.clock_guard import ClockGuard
from birthday.operations.forecast import Forecaster
from birthday.operations.heartbeats import CircuitNow, Heartbeats
from birthday.operations.pauses import Pauses
from birthday.scheduler.dispatcher import Dispatcher
from birthday.scheduler.janitor import Janitor
from birthday.scheduler.loop import Progress, Schedule, run_scheduler
from birthday.scheduler.planner import Planner
from birthday.store.statistics import count_greeted, count_overdue, read_figures
from birthday.store.users import Planning
from birthday.telemetry.blocking import named_blocking
from birthday.telemetry.build import read_version
from birthday.telemetry.database import watch_database
from birthday.telemetry.garbage import frozen_start, measured_collections
from birthday.telemetry.logs import LogFile, tell_unhandled
from birthday.telemetry.loop_lag import watch_loop
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.overdue import watch_overdue
from birthday.telemetry.queue import watch_queue
from birthday.telemetry.score import watch_score
from birthday.telemetry.supervision import Supervisor
from birthday.telemetry.tracing import Tracing
from birthday.telemetry.utilization import watch_utilization
from birthday.wiring import (
    channel_name,
    database_checks,
    database_name,
    open_broker,
    open_channel,
    open_database,
    open_tracing,
    queue_name,
    this_process,
)
from birthday.wiring.file_limit import raise_file_limit
from birthday.worker.intake import Intake
from birthday.worker.pipeline import Limits, Pipeline
from birthday.worker.sender import Sender
from birthday.worker.settler import Settler
from birthday.worker.watchdog import Watchdog

log = structlog.get_logger()

LEAVING = timedelta(seconds=1)
CLOSING = timedelta(seconds=2)
"""How long closing everything may take beyond SHUTDOWN_TIMEOUT, which is for what is in flight."""
SETTLING = timedelta(seconds=2)
"""What a stop keeps of SHUTDOWN_TIMEOUT for storing the last outcomes."""
STUCK_SECONDS = 10.0
"""How long a worker may wait for an outcome to be stored, and the dispatcher fail, before the process is not ready."""


async def run(settings: Settings, clock: Clock, logs: LogFile) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status; SIGUSR1 reopens the log file.

    0 is a clean stop, 1 one that cut something off or a role that crashed, 130 a second signal, which waits for
    nothing. Whatever is cut off comes again from queue and leases.

    A resource that cannot be opened is logged, with where it was looked for and why: what follows a start in the log
    need not be read in two places.
    """
    log.info("service.file_limit", files=str(raise_file_limit()))
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, clock, stop, sys.stdout))
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(tell_unhandled)

    def on_signal() -> None:
        if stop.is_set():
            serving.cancel()
        log.info("service.stopping", shutdown_timeout_seconds=settings.shutdown_timeout.total_seconds())
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGUSR1, logs.reopen)
    try:
        return 0 if await serving else 1
    except (BirthdayError, asyncpg.PostgresError) as error:
        log.error("service.failed", error=error)
        return 1
    except asyncio.CancelledError:
        log.warning("service.stopped_at_once", reason="asked to stop a second time")
        return 130
    except BaseExceptionGroup:
        log.exception("service.crashed")
        return 1


async def serve(settings: Settings, clock: Clock, stop: asyncio.Event, console: TextIO) -> bool:
    """Run the roles of ``settings`` until ``stop`` is set, then drain them and say whether that ended in time.

    Raises:
        BirthdayError: if a resource cannot be opened.
    """
    drained = True
    cutoff = Cutoff(settings.shutdown_timeout + CLOSING)
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(open_tracing(settings, console))
        stack.callback(cutoff.cancel)
        metrics = Metrics()
        pool = await stack.enter_async_context(open_database(settings, clock, metrics, create=True))
        guard = ClockGuard(clock, pool, metrics)
        await guard.compare()
        broker = await stack.enter_async_context(open_broker(settings, pool, must_answer=needs_queue(settings)))
        channel = await stack.enter_async_context(open_channel(settings, guard, console, tracing))
        pauses = Pauses(pool, guard, metrics)
        await pauses.refresh()
        pipeline = make_pipeline(settings, pool, broker, channel, pauses, guard, metrics, tracing)
        show_usage(settings, pipeline, metrics)
        watchdog = Watchdog(pipeline, broker.stats, guard, metrics)
        progress = Progress()
        supervisor = Supervisor(metrics, guard)
        own = own_checks(settings, guard, supervisor, progress, pipeline, watchdog, pauses)
        readiness = make_readiness(settings, pool, broker, channel, own, sending_checks(settings, pipeline))
        context = ApiContext(pool, broker, guard, metrics, settings, readiness, pauses, tracing)
        grace = min(GRACE, settings.shutdown_timeout)
        address = await stack.enter_async_context(serve_http(build(context), settings.host, settings.port, grace))
        stack.enter_context(frozen_start())
        stack.enter_context(measured_collections(metrics))
        if settings.event_loop_debug:
            stack.enter_context(named_blocking(asyncio.get_running_loop()))
        async with asyncio.TaskGroup() as roles:
            background = [roles.create_task(watch(context, pipeline, supervisor), name="metrics")]
            background.append(roles.create_task(supervisor.keep("pauses", pauses.watch), name="pauses"))
            background.append(roles.create_task(supervisor.keep("clock", guard.watch), name="clock"))
            if Role.SCHEDULER in settings.role:
                scheduling = partial(schedule, settings, pool, broker, pauses, guard, metrics, progress, tracing)
                background.append(roles.create_task(supervisor.keep("scheduler", scheduling), name="scheduler"))
            delivering = None
            if Role.WORKER in settings.role:
                delivering = roles.create_task(pipeline.run(), name="worker")
                background.append(roles.create_task(supervisor.keep("watchdog", watchdog.run), name="watchdog"))
            announce(settings, address)
            await stop.wait()
            readiness.draining = True
            cutoff.start(pool, [*background, delivering] if delivering else background)
            leaving = roles.create_task(let_clients_leave(settings, guard))
            for task in background:
                task.cancel()
            if delivering is not None:
                drained = await drain(pipeline, delivering, settings.shutdown_timeout, settings.message_service_timeout)
            await leaving
    log.info("service.stopped")
    return drained and not cutoff.happened


class Cutoff:
    """The end of all patience with a database that does not answer: whoever waits for it then waits no more."""

    def __init__(self, patience: timedelta) -> None:
        """Keep how long after ``start`` it comes."""
        self.happened = False
        self._seconds = patience.total_seconds()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, pool: asyncpg.Pool, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Terminate every connection of ``pool`` later, unless that is cancelled; ``tasks`` is what may still run."""
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._cut_off, pool, tasks)

    def cancel(self) -> None:
        """Do nothing later: everything is closed."""
        if self._timer is not None:
            self._timer.cancel()

    def _cut_off(self, pool: asyncpg.Pool, tasks: Sequence[asyncio.Task[None]]) -> None:
        self.happened = True
        log.warning(
            "service.cut_off",
            after_seconds=self._seconds,
            running=[task.get_name() for task in tasks if not task.done()],
            connections=pool.get_size(),
            reason="the database did not answer; what was cut off comes again from queue and leases",
        )
        pool.terminate()


async def watch(context: ApiContext, pipeline: Pipeline, supervisor: Supervisor) -> None:
    """Say that this process runs, and keep the figures fresh that nobody pushes, until cancelled."""
    pool, metrics, clock = context.pool, context.metrics, context.clock
    process = this_process(context.settings, clock)
    metrics.build_info.labels(process.version, process.commit, process.tzdata).set(1)
    heartbeats = Heartbeats(pool, process, circuit_of(context.settings, pipeline), metrics, clock)
    read, count = partial(read_figures, pool), partial(count_greeted, pool)
    tasks: dict[str, Callable[[], Awaitable[None]]] = {
        "heartbeats": heartbeats.run,
        "event_loop": lambda: watch_loop(metrics),
        "queue_figures": lambda: watch_queue(context.broker.stats, metrics, clock),
        "overdue": lambda: watch_overdue(partial(count_overdue, pool), metrics, clock),
        "database_figures": lambda: watch_database(read, count, metrics, clock),
    }
    if Role.API in context.settings.role:
        tasks["api_score"] = lambda: watch_score(context.score, metrics, clock)
    if Role.WORKER in context.settings.role:
        tasks["worker_utilization"] = lambda: watch_utilization(lambda: pipeline.waiting_seconds > 0, metrics, clock)
    async with asyncio.TaskGroup() as watching:
        for name, task in tasks.items():
            watching.create_task(supervisor.keep(name, task))


def show_usage(settings: Settings, pipeline: Pipeline, metrics: Metrics) -> None:
    """Show what this process has in use, asked for at each scrape."""
    loop = asyncio.get_running_loop()
    metrics.active_tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
    metrics.active_workers.set_function(lambda: pipeline.receiving)
    if Role.WORKER in settings.role:
        metrics.prefetch_count.set(pipeline.prefetch)


def circuit_of(settings: Settings, pipeline: Pipeline) -> CircuitNow | None:
    """Return what says how the circuit of this process is; None if it has no worker."""
    if Role.WORKER not in settings.role:
        return None
    circuit = pipeline.circuit

    def now() -> tuple[str, str | None]:
        reason = f"{circuit.cause_text}: {circuit.reason}" if circuit.cause else None
        return circuit.state.name.lower().replace("_", "-"), reason

    return now


async def check_clock(clock: CheckedClock) -> None:
    """Make sure that the clock is the database's.

    Raises:
        WrongClockError: if it is not; the text says how far it is off.
    """
    if clock.fault is not None:
        raise WrongClockError(clock.fault)


async def check_worker(pipeline: Pipeline, watchdog: Watchdog, pauses: Pauses, clock: CheckedClock) -> None:
    """Make sure that the role worker takes messages and stores what came of them.

    Raises:
        UnavailableError: if it does not; the text says what it lacks.
    """
    if pipeline.stuck_seconds > STUCK_SECONDS:
        raise UnavailableError(
            "consumer", f"the worker has been trying for {pipeline.stuck_seconds:.0f} s to store what it does"
        )
    if pauses.is_paused(BIRTHDAY) or clock.fault is not None:
        return
    if not pipeline.receiving:
        raise UnavailableError("consumer", "the worker has no subscription to the queue; it is trying to get one")
    if watchdog.suspicious:
        raise UnavailableError("consumer", "messages wait in the queue, and the worker's subscription brings none")


def needs_queue(settings: Settings) -> bool:
    """Say whether the roles cannot work without the queue: users are created without it."""
    return settings.role != {Role.API}


def sending_checks(settings: Settings, pipeline: Pipeline) -> dict[str, Check]:
    """Return what tells whether the role worker sends, by name."""
    return {SENDING: partial(check_sending, pipeline)} if Role.WORKER in settings.role else {}


async def check_sending(pipeline: Pipeline) -> None:
    """Make sure that the worker sends what it takes. If not, messages wait, and the process is ready all the same.

    Raises:
        UnavailableError: if the circuit is not closed, or this host lacks something; the text says why.
    """
    if hindrance := pipeline.hindrance:
        raise UnavailableError("sending", hindrance)


async def check_scheduler(progress: Progress) -> None:
    """Make sure that the role scheduler dispatches.

    Raises:
        UnavailableError: if it has failed to for a while.
    """
    if progress.failing_seconds > STUCK_SECONDS:
        raise UnavailableError("scheduler", f"the dispatcher has been failing for {progress.failing_seconds:.0f} s")


def own_checks(
    settings: Settings,
    clock: CheckedClock,
    supervisor: Supervisor,
    progress: Progress,
    pipeline: Pipeline,
    watchdog: Watchdog,
    pauses: Pauses,
) -> dict[str, Check]:
    """Return what the process knows of itself, by name."""
    checks: dict[str, Check] = {BACKGROUND: supervisor.check, CLOCK: partial(check_clock, clock)}
    if Role.SCHEDULER in settings.role:
        checks[SCHEDULER] = partial(check_scheduler, progress)
    if Role.WORKER in settings.role:
        checks[CONSUMER] = partial(check_worker, pipeline, watchdog, pauses, clock)
    return checks


def make_readiness(
    settings: Settings,
    pool: asyncpg.Pool,
    broker: Broker,
    channel: Channel,
    own: Mapping[str, Check],
    can_wait: Mapping[str, Check] | None = None,
) -> Readiness:
    """Say what the process depends on, how to ask each dependency, and what it knows of its roles: the last two."""
    queue: dict[str, Check] = {QUEUE: broker.check}
    if needs_queue(settings):
        return Readiness(database_checks(pool) | queue, channel.check, own, can_wait=can_wait)
    return Readiness(database_checks(pool), channel.check, own, queue, can_wait)


async def schedule(
    settings: Settings,
    pool: asyncpg.Pool,
    broker: Broker,
    pauses: Pauses,
    clock: CheckedClock,
    metrics: Metrics,
    progress: Progress,
    tracing: Tracing,
) -> None:
    """Run the role scheduler until cancelled."""
    planning = Planning(settings.rules, settings.plan_horizon)
    planner = Planner(pool, metrics, planning, settings.catch_up_window, tracing)
    dispatcher = Dispatcher(pool, broker, metrics, settings.catch_up_window, pauses, tracing)
    retention = timedelta(days=settings.retention_days)
    auditor = Auditor(pool, planning, retention)
    forecaster = Forecaster(pool, settings.rules)
    janitor = Janitor(pool, broker, metrics, settings.catch_up_window, retention, pauses, auditor, forecaster)
    ticks = Schedule(settings.cron_plan, settings.cron_recover, settings.cron_retention)
    await run_scheduler(planner, dispatcher, janitor, ticks, clock, metrics, progress)


def show_cause(metrics: Metrics, cause: Cause | None) -> None:
    """Show why the circuit is not closed, or that it is."""
    for each in Cause:
        metrics.circuit_breaker_open.labels(each.value).set(each is cause)


def make_pipeline(
    settings: Settings,
    pool: asyncpg.Pool,
    broker: Broker,
    channel: Channel,
    pauses: Pauses,
    clock: CheckedClock,
    metrics: Metrics,
    tracing: Tracing,
) -> Pipeline:
    """Put the delivery pipeline of the role worker together."""
    random = Random()  # noqa: S311 - jitter, no secret
    show_cause(metrics, None)
    limits = Limits(settings.worker_concurrency, settings.message_service_timeout)
    breaker = CircuitBreaker(
        settings.circuit_breaker_failure_threshold,
        settings.circuit_breaker_reset_timeout,
        clock,
        lambda state: metrics.circuit_breaker_state.set(state.value),
        partial(show_cause, metrics),
    )
    intake = Intake(pool, broker, clock, metrics, settings.catch_up_window, limits.lease, random, tracing)
    settler = Settler(pool, broker, clock, metrics, settings.retry, random)
    sender = Sender(channel, breaker, clock, metrics, tracing)
    return Pipeline(broker, intake, sender, settler, limits, pauses, clock, random)


async def let_clients_leave(settings: Settings, clock: Clock) -> None:
    """Keep answering for a moment: each answer tells its client to close the connection before we close the port."""
    if Role.API in settings.role:
        await clock.sleep(min(LEAVING, settings.shutdown_timeout).total_seconds())


async def drain(pipeline: Pipeline, delivering: asyncio.Task[None], patience: timedelta, sending: timedelta) -> bool:
    """Stop the pipeline and say whether it ended within ``patience``; what has not is cut off.

    What it has taken from the queue is sent as long as there is time, then given back: ``sending`` is how long one send
    may take, and its outcome has to be stored as well.
    """
    pipeline.stop()
    at_ease = max(timedelta(), patience - sending - SETTLING)
    _, late = await asyncio.wait({delivering}, timeout=at_ease.total_seconds())
    if late:
        pipeline.hurry()
        _, late = await asyncio.wait({delivering}, timeout=(patience - at_ease).total_seconds())
    if late:
        log.warning("service.drain_cut_off", shutdown_timeout_seconds=patience.total_seconds())
        delivering.cancel()
    return not late


def announce(settings: Settings, address: tuple[str, int]) -> None:
    """Log where everything is, and what to set to change it."""
    host, port = address
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    places = {"health": f"{url}/health", "metrics": f"{url}/metrics"}
    if Role.API in settings.role:
        places = {"api": f"{url}/users", "docs": f"{url}/docs"} | places
    log.info(
        "service.started",
        version=read_version(),
        roles=settings.role_names,
        **places,
        database=database_name(settings),
        queue=queue_name(settings),
        channel=channel_name(settings),
    )
