"""The composition root: opens what the roles share, starts the chosen ones, and drains them.

Read ``serve`` from top to bottom: it is the program. Everything that is opened here is closed here, in reverse order.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import TextIO

import asyncpg
import structlog

from birthday.clock import Clock
from birthday.config import Role, Settings
from birthday.errors import BirthdayError, ConfigurationError
from birthday.http.app import build
from birthday.http.context import ApiContext
from birthday.http.server import GRACE
from birthday.http.server import serve as serve_http
from birthday.operations.clock_guard import ClockGuard
from birthday.operations.readiness import DATABASE, QUEUE
from birthday.operations.templates.compiling import Compiler
from birthday.scheduler.loop import DispatchProgress
from birthday.telemetry.blocking import named_blocking
from birthday.telemetry.build import read_version
from birthday.telemetry.garbage import frozen_start, measured_collections
from birthday.telemetry.logs import LogFile, tell_unhandled
from birthday.telemetry.loop_lag import LoopWatch
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.supervision import Supervisor
from birthday.telemetry.systemd import Systemd
from birthday.wiring.banner import banner
from birthday.wiring.channel import open_channel
from birthday.wiring.collectors import make_collectors, show_usage
from birthday.wiring.copies import read_copies
from birthday.wiring.database import connect_directly, open_database
from birthday.wiring.file_limit import raise_file_limit
from birthday.wiring.names import channel_name, database_name, queue_name
from birthday.wiring.patience import Patience, StoppedError
from birthday.wiring.process import open_tracing
from birthday.wiring.queue import needs_queue, open_broker, open_sessions
from birthday.wiring.readiness import make_readiness, own_checks, shown_checks
from birthday.wiring.scheduler import schedule
from birthday.wiring.shared import Shared
from birthday.wiring.worker import make_pipeline, open_links
from birthday.worker.pipeline import Pipeline
from birthday.worker.watchdog import Watchdog

log = structlog.get_logger()

LEAVING = timedelta(seconds=1)
CLOSING = timedelta(seconds=2)
"""How long closing everything may take after SHUTDOWN_TIMEOUT, which covers only the messages in flight."""
SWITCH_SECONDS = 0.0005
"""How long another thread, such as one that packs an answer, keeps the event loop waiting for the interpreter."""
SETTLING = timedelta(seconds=2)
"""The part of SHUTDOWN_TIMEOUT that a stop reserves for storing the last outcomes."""


async def run(settings: Settings, clock: Clock, logs: LogFile, systemd: Systemd) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status; SIGUSR1 reopens the log file.

    The status is 0 after a clean stop. It is 1 if a resource failed, a role crashed, or the stop cut something off. It
    is 130 after a second signal, which stops at once. Messages that are cut off come again, from the queue or when
    their lease has run out.

    If a resource cannot be opened, its address and the reason are logged, so that the log alone shows how a start went.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = asyncio.Event()
    is_free = settings.log_file is not None or settings.log_format != "json"
    terminal = sys.stderr if sys.stderr.isatty() and is_free else None
    serving = asyncio.create_task(serve(settings, clock, stop, systemd, logs, sys.stdout, terminal))
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
    except StoppedError:
        log.info("service.stopped")
        return 0
    except ConfigurationError:
        # The caller reports a wrong setting as a plain line, with status 2, as in every command.
        raise
    except (BirthdayError, asyncpg.PostgresError) as error:
        log.error("service.failed", error=error)
        return 1
    except asyncio.CancelledError:
        log.warning("service.stopped_at_once", reason="asked to stop a second time")
        return 130
    except BaseExceptionGroup:
        log.exception("service.crashed")
        return 1


async def serve(
    settings: Settings,
    clock: Clock,
    stop: asyncio.Event,
    systemd: Systemd,
    logs: LogFile,
    console: TextIO,
    terminal: TextIO | None = None,
) -> bool:
    """Run the roles of ``settings`` until ``stop`` is set, then drain them and say whether that ended in time.

    ``console`` is where greetings are printed, ``terminal`` where a person watches the start, if one does.

    Raises:
        BirthdayError: if a resource cannot be opened. One that is away is waited for, up to START_TIMEOUT.
        StoppedError: if ``stop`` is set during that wait.
    """
    drained = True
    cutoff = Cutoff(settings.shutdown_timeout + CLOSING)
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(open_tracing(settings, console))
        stack.callback(cutoff.cancel)
        file_limit = raise_file_limit()
        metrics = Metrics()
        patience = await stack.enter_async_context(Patience(settings, stop))
        pool = await patience.open(stack, DATABASE, partial(open_database, settings, clock, metrics, create=True))
        guard = ClockGuard(clock, pool, metrics)
        await guard.compare()
        sessions = await patience.open(stack, QUEUE, partial(open_sessions, settings, pool))
        broker = await patience.open(
            stack, QUEUE, partial(open_broker, settings, pool, sessions, must_answer=needs_queue(settings))
        )
        channel = await stack.enter_async_context(open_channel(settings, guard, console, tracing, metrics))
        pauses, keys = await read_copies(settings, pool, guard, metrics)
        links = await open_links(settings, pool)
        shared = Shared(settings, pool, broker, pauses, guard, metrics, tracing, links)
        # The API has another compiler: what it is given must not keep the worker waiting.
        compiler = await stack.enter_async_context(Compiler())
        pipeline = make_pipeline(shared, channel, await stack.enter_async_context(Compiler()))
        show_usage(shared, pipeline)
        watchdog = Watchdog(pipeline, broker.stats, guard, metrics)
        progress = DispatchProgress()
        supervisor = Supervisor(metrics, guard)
        loop_watch = LoopWatch(metrics)
        readiness = make_readiness(
            shared,
            channel,
            own_checks(shared, supervisor, progress, pipeline, watchdog),
            shown_checks(shared, pipeline, loop_watch, logs),
        )
        context = ApiContext(
            pool,
            broker,
            guard,
            metrics,
            settings,
            readiness,
            pauses,
            channel,
            compiler,
            keys,
            partial(connect_directly, settings, pool),
            tracing,
        )
        tasks = make_collectors(shared, context.score, context.notices, loop_watch, pipeline) | {
            "pauses": pauses.watch,
            "api_keys": keys.watch,
            "clock": guard.watch,
        }
        if Role.SCHEDULER in settings.role:
            tasks["scheduler"] = partial(schedule, shared, progress)
        if Role.WORKER in settings.role:
            tasks["watchdog"] = watchdog.run
        address = await listen(stack, context, patience)
        stack.enter_context(frozen_start())
        stack.enter_context(measured_collections(metrics))
        if settings.event_loop_debug:
            stack.enter_context(named_blocking(asyncio.get_running_loop()))
        async with asyncio.TaskGroup() as roles:
            background = [roles.create_task(supervisor.keep(name, task), name=name) for name, task in tasks.items()]
            delivering = roles.create_task(pipeline.run(), name="worker") if Role.WORKER in settings.role else None
            announce(settings, address, file_limit, terminal)
            await systemd.report_until(stop, f"Serves {settings.role_names} on {address[0]}, port {address[1]}")
            readiness.draining = True
            cutoff.start([pool, sessions], [*background, delivering] if delivering else background)
            leaving = roles.create_task(let_clients_leave(settings, guard))
            for task in background:
                task.cancel()
            if delivering is not None:
                drained = await drain(pipeline, delivering, settings.shutdown_timeout, settings.message_service_timeout)
            await leaving
    log.info("service.stopped")
    return drained and not cutoff.happened


async def listen(stack: AsyncExitStack, context: ApiContext, patience: Patience) -> tuple[str, int]:
    """Serve requests from now on, in place of what answered probes while the start waited."""
    settings = context.settings
    grace = min(GRACE, settings.shutdown_timeout)
    address = await stack.enter_async_context(serve_http(build(context), settings.host, patience.port, grace))
    await patience.end()
    return address


class Cutoff:
    """The time limit of a stop: then all connections are terminated, so that nothing waits for the database."""

    def __init__(self, patience: timedelta) -> None:
        """Set how long after ``start`` the connections are terminated."""
        self.happened = False
        self._seconds = patience.total_seconds()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, pools: Sequence[asyncpg.Pool | None], tasks: Sequence[asyncio.Task[None]]) -> None:
        """Start the timer that terminates all connections of ``pools``; ``tasks`` are logged if they still run then."""
        opened = [pool for pool in pools if pool is not None]
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._cut_off, opened, tasks)

    def cancel(self) -> None:
        """Stop the timer, because everything is closed."""
        if self._timer is not None:
            self._timer.cancel()

    def _cut_off(self, pools: Sequence[asyncpg.Pool], tasks: Sequence[asyncio.Task[None]]) -> None:
        self.happened = True
        log.warning(
            "service.cut_off",
            after_seconds=self._seconds,
            running=[task.get_name() for task in tasks if not task.done()],
            connections=sum(pool.get_size() for pool in pools),
            reason="the database did not answer; what was cut off comes again from queue and leases",
        )
        for pool in pools:
            pool.terminate()


async def let_clients_leave(settings: Settings, clock: Clock) -> None:
    """Keep answering for a moment: each answer tells its client to close the connection before we close the port."""
    if Role.API in settings.role:
        await clock.sleep(min(LEAVING, settings.shutdown_timeout).total_seconds())


async def drain(pipeline: Pipeline, delivering: asyncio.Task[None], patience: timedelta, sending: timedelta) -> bool:
    """Stop the pipeline and say whether it ended within ``patience``; if not, it is cancelled.

    The pipeline first sends what it has taken from the queue. When ``patience`` has just enough time left for one send
    (``sending``) and for storing its outcome, the pipeline gives back what it has not begun to send.
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


def announce(settings: Settings, address: tuple[str, int], file_limit: str, terminal: TextIO | None) -> None:
    """Print the address of everything on a terminal; log it, unless the log goes there as well.

    For a default, name the setting that changes it.
    """
    host, port = address
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    places = {"health": f"{url}/health", "metrics": f"{url}/metrics"}
    if Role.API in settings.role:
        places = {"api": f"{url}/users", "docs": f"{url}/docs"} | places
        if settings.console == "on":
            places["console"] = f"{url}/console"
    places |= {
        "database": database_name(settings),
        "queue": queue_name(settings),
        "channel": channel_name(settings),
    }
    version, roles = read_version(), settings.role_names
    if terminal is None or settings.log_file is not None:
        log.info("service.started", version=version, roles=roles, **places, file_limit=file_limit)
    if terminal is not None:
        terminal.write(banner(version, roles, places))
        terminal.flush()
