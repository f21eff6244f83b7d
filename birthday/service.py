"""The composition root: opens what the roles share, starts the chosen ones, and drains them.

Read ``serve`` from top to bottom: it is the program. Everything that is opened here is closed here, in reverse order.
"""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.metadata import version
from random import Random
from typing import TextIO

import asyncpg
import structlog

from birthday.api.app import build
from birthday.api.context import ApiContext
from birthday.api.readiness import CONSUMER, DATABASE, MIGRATIONS, QUEUE, Readiness
from birthday.api.server import GRACE
from birthday.api.server import serve as serve_http
from birthday.audit.auditor import Auditor
from birthday.broker import Broker
from birthday.channel import Channel
from birthday.channel.breaker import CircuitBreaker
from birthday.clock import Clock
from birthday.config import Role, Settings
from birthday.core.message import BIRTHDAY
from birthday.errors import UnavailableError
from birthday.migrate import check_schema, load_migrations, schema_directory
from birthday.pauses import Pauses
from birthday.resources import channel_name, database_name, open_broker, open_channel, open_database, queue_name
from birthday.scheduler.dispatcher import Dispatcher
from birthday.scheduler.janitor import Janitor
from birthday.scheduler.loop import Schedule, run_scheduler
from birthday.scheduler.planner import Planner
from birthday.store.connection import borrow, check_database
from birthday.store.users import Planning
from birthday.telemetry.logs import LogFile
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.queue import watch_queue
from birthday.worker.intake import Intake
from birthday.worker.pipeline import Limits, Pipeline
from birthday.worker.sender import Sender
from birthday.worker.settler import Settler
from birthday.worker.watchdog import watch_consumer

log = structlog.get_logger()

LEAVING = timedelta(seconds=1)


async def run(settings: Settings, clock: Clock, logs: LogFile) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status; SIGUSR1 reopens the log file.

    0 is a clean stop, 1 one that cut something off or a role that crashed, 130 a second signal, which waits for
    nothing. Whatever is cut off comes again from queue and leases.

    Raises:
        BirthdayError: if a resource cannot be opened; the text says which one, where and why.
    """
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, clock, stop, sys.stdout))
    loop = asyncio.get_running_loop()

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
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        pool = await stack.enter_async_context(open_database(settings, clock, serving=True))
        broker = await stack.enter_async_context(open_broker(settings, pool))
        channel = await stack.enter_async_context(open_channel(settings, clock, console))
        pauses = Pauses(pool, clock, metrics)
        await pauses.refresh()
        pipeline = make_pipeline(settings, pool, broker, channel, pauses, clock, metrics)
        readiness = make_readiness(pool, broker, channel, pauses, pipeline if Role.WORKER in settings.role else None)
        context = ApiContext(pool, broker, clock, metrics, settings, readiness, pauses)
        grace = min(GRACE, settings.shutdown_timeout)
        address = await stack.enter_async_context(serve_http(build(context), settings.host, settings.port, grace))
        async with asyncio.TaskGroup() as roles:
            background = [roles.create_task(watch_queue(broker.stats, metrics, clock))]
            background.append(roles.create_task(pauses.watch()))
            if Role.SCHEDULER in settings.role:
                background.append(roles.create_task(schedule(settings, pool, broker, pauses, clock, metrics)))
            delivering = None
            if Role.WORKER in settings.role:
                delivering = roles.create_task(pipeline.run())
                background.append(roles.create_task(watch_consumer(pipeline, broker.stats, clock, metrics)))
            announce(settings, address)
            await stop.wait()
            readiness.draining = True
            leaving = roles.create_task(let_clients_leave(settings, clock))
            for task in background:
                task.cancel()
            if delivering is not None:
                drained = await drain(pipeline, delivering, settings.shutdown_timeout)
            await leaving
    log.info("service.stopped")
    return drained


def make_readiness(
    pool: asyncpg.Pool, broker: Broker, channel: Channel, pauses: Pauses, pipeline: Pipeline | None
) -> Readiness:
    """Say what the process depends on, and how to ask each dependency."""
    migrations = load_migrations(schema_directory())

    async def check_migrations() -> None:
        async with borrow(pool) as connection:
            await check_schema(connection, migrations)

    async def check_consumer() -> None:
        if pipeline is not None and not pipeline.receiving and not pauses.is_paused(BIRTHDAY):
            raise UnavailableError("consumer", "the worker has no subscription to the queue; it is trying to get one")

    needed = {DATABASE: lambda: check_database(pool), MIGRATIONS: check_migrations, QUEUE: broker.check}
    if pipeline is not None:
        needed[CONSUMER] = check_consumer
    return Readiness(needed, channel.check)


async def schedule(
    settings: Settings, pool: asyncpg.Pool, broker: Broker, pauses: Pauses, clock: Clock, metrics: Metrics
) -> None:
    """Run the role scheduler until cancelled."""
    planning = Planning(settings.rules, settings.plan_horizon)
    planner = Planner(pool, metrics, planning, settings.catch_up_window)
    dispatcher = Dispatcher(pool, broker, metrics, settings.catch_up_window, pauses)
    retention = timedelta(days=settings.retention_days)
    auditor = Auditor(pool, planning, retention)
    janitor = Janitor(pool, broker, metrics, settings.catch_up_window, retention, pauses, auditor)
    ticks = Schedule(settings.cron_plan, settings.cron_recover, settings.cron_retention)
    await run_scheduler(planner, dispatcher, janitor, ticks, clock, metrics)


def make_pipeline(
    settings: Settings,
    pool: asyncpg.Pool,
    broker: Broker,
    channel: Channel,
    pauses: Pauses,
    clock: Clock,
    metrics: Metrics,
) -> Pipeline:
    """Put the delivery pipeline of the role worker together."""
    random = Random()  # noqa: S311 - jitter, no secret
    limits = Limits(settings.worker_concurrency, settings.message_service_timeout)
    breaker = CircuitBreaker(
        settings.circuit_breaker_failure_threshold,
        settings.circuit_breaker_reset_timeout,
        clock,
        lambda state: metrics.circuit_breaker_state.set(state.value),
    )
    intake = Intake(pool, broker, clock, metrics, settings.catch_up_window, limits.lease, random)
    settler = Settler(pool, broker, clock, metrics, settings.retry, random)
    sender = Sender(channel, breaker, clock, metrics)
    return Pipeline(broker, intake, sender, settler, limits, pauses, clock, random)


async def let_clients_leave(settings: Settings, clock: Clock) -> None:
    """Keep answering for a moment: each answer tells its client to close the connection before we close the port."""
    if Role.API in settings.role:
        await clock.sleep(min(LEAVING, settings.shutdown_timeout).total_seconds())


async def drain(pipeline: Pipeline, delivering: asyncio.Task[None], patience: timedelta) -> bool:
    """Stop the pipeline and say whether it ended within ``patience``; what has not is cut off."""
    pipeline.stop()
    _, late = await asyncio.wait({delivering}, timeout=patience.total_seconds())
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
        version=version("birthday-scheduler"),
        roles=",".join(role for role in Role if role in settings.role),
        **places,
        database=database_name(settings),
        queue=queue_name(settings),
        channel=channel_name(settings),
    )
