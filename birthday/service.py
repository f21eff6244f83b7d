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
from birthday.broker import Broker
from birthday.channel import Channel
from birthday.channel.breaker import CircuitBreaker
from birthday.clock import Clock
from birthday.config import Role, Settings
from birthday.errors import UnavailableError
from birthday.migrate import check_schema, load_migrations, schema_directory
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


async def run(settings: Settings, clock: Clock, logs: LogFile) -> None:
    """Serve until SIGTERM or SIGINT; SIGUSR1 reopens the log file. A second signal to stop does not wait for anything.

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
        await serving
    except asyncio.CancelledError:
        log.warning("service.stopped_at_once", reason="asked to stop a second time")


async def serve(settings: Settings, clock: Clock, stop: asyncio.Event, console: TextIO) -> None:
    """Run the roles of ``settings`` until ``stop`` is set, then drain them and return.

    Raises:
        BirthdayError: if a resource cannot be opened.
    """
    async with AsyncExitStack() as stack:
        metrics = Metrics()
        pool = await stack.enter_async_context(open_database(settings, clock))
        broker = await stack.enter_async_context(open_broker(settings, pool))
        channel = await stack.enter_async_context(open_channel(settings, clock, console))
        pipeline = make_pipeline(settings, pool, broker, channel, clock, metrics)
        readiness = make_readiness(pool, broker, channel, pipeline if Role.WORKER in settings.role else None)
        context = ApiContext(pool, broker, clock, metrics, settings, readiness)
        grace = min(GRACE, settings.shutdown_timeout)
        address = await stack.enter_async_context(serve_http(build(context), settings.host, settings.port, grace))
        async with asyncio.TaskGroup() as roles:
            background = [roles.create_task(watch_queue(broker.stats, metrics, clock))]
            if Role.SCHEDULER in settings.role:
                background.append(roles.create_task(schedule(settings, pool, broker, clock, metrics)))
            delivering = None
            if Role.WORKER in settings.role:
                delivering = roles.create_task(pipeline.run())
                background.append(roles.create_task(watch_consumer(pipeline, broker.stats, clock, metrics)))
            announce(settings, address)
            await stop.wait()
            readiness.draining = True
            for task in background:
                task.cancel()
            if delivering is not None:
                await drain(pipeline, delivering, settings.shutdown_timeout)
    log.info("service.stopped")


def make_readiness(pool: asyncpg.Pool, broker: Broker, channel: Channel, pipeline: Pipeline | None) -> Readiness:
    """Say what the process depends on, and how to ask each dependency."""
    migrations = load_migrations(schema_directory())

    async def check_migrations() -> None:
        async with borrow(pool) as connection:
            await check_schema(connection, migrations)

    async def check_consumer() -> None:
        if pipeline is not None and not pipeline.receiving:
            raise UnavailableError("consumer", "the worker has no subscription to the queue; it is trying to get one")

    needed = {DATABASE: lambda: check_database(pool), MIGRATIONS: check_migrations, QUEUE: broker.check}
    if pipeline is not None:
        needed[CONSUMER] = check_consumer
    return Readiness(needed, channel.check)


async def schedule(settings: Settings, pool: asyncpg.Pool, broker: Broker, clock: Clock, metrics: Metrics) -> None:
    """Run the role scheduler until cancelled."""
    planner = Planner(pool, metrics, Planning(settings.rules, settings.plan_horizon), settings.catch_up_window)
    dispatcher = Dispatcher(pool, broker, metrics, settings.catch_up_window)
    retention = timedelta(days=settings.retention_days)
    janitor = Janitor(pool, broker, metrics, settings.catch_up_window, retention)
    ticks = Schedule(settings.cron_plan, settings.cron_recover, settings.cron_retention)
    await run_scheduler(planner, dispatcher, janitor, ticks, clock, metrics)


def make_pipeline(
    settings: Settings, pool: asyncpg.Pool, broker: Broker, channel: Channel, clock: Clock, metrics: Metrics
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
    return Pipeline(broker, intake, sender, settler, limits, clock, random)


async def drain(pipeline: Pipeline, delivering: asyncio.Task[None], patience: timedelta) -> None:
    """Stop the pipeline; what has not ended within ``patience`` is cut off, and comes again from queue and leases."""
    pipeline.stop()
    _, late = await asyncio.wait({delivering}, timeout=patience.total_seconds())
    if late:
        log.warning("service.drain_cut_off", shutdown_timeout_seconds=patience.total_seconds())
        delivering.cancel()


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
