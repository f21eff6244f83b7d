"""The tasks of the process beside its roles: figures that are read in the background, and delivery events."""

import asyncio
from collections.abc import Awaitable, Callable

from birthday.config import Role, Settings
from birthday.operations.figures import watch_database, watch_overdue, watch_queue
from birthday.operations.heartbeats import CircuitNow, Heartbeats
from birthday.operations.notices import Notices
from birthday.telemetry.loop_lag import LoopWatch
from birthday.telemetry.score import HealthScore, watch_score
from birthday.telemetry.utilization import watch_utilization
from birthday.wiring.process import this_process
from birthday.wiring.scheduler import send_events
from birthday.wiring.shared import Shared
from birthday.worker.pipeline import Pipeline


def make_collectors(
    shared: Shared, score: HealthScore, notices: Notices, loop_watch: LoopWatch, pipeline: Pipeline
) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return background tasks by name: they refresh the figures, report this process to the database, and send events.

    They run until cancelled.
    """
    settings, pool, metrics, clock = shared.settings, shared.pool, shared.metrics, shared.clock
    process = this_process(settings, clock)
    metrics.build_info.labels(process.version, process.commit, process.tzdata).set(1)
    heartbeats = Heartbeats(pool, process, _circuit_of(settings, pipeline), notices, metrics, clock)
    collectors: dict[str, Callable[[], Awaitable[None]]] = {
        "heartbeats": heartbeats.run,
        "event_loop": loop_watch.run,
        "queue_figures": lambda: watch_queue(shared.broker, metrics, clock),
        "overdue": lambda: watch_overdue(pool, metrics, clock),
        "database_figures": lambda: watch_database(pool, metrics, clock),
    }
    if Role.SCHEDULER in settings.role and settings.events_url is not None:
        collectors["events"] = lambda: send_events(shared)
    if Role.API in settings.role:
        collectors["api_score"] = lambda: watch_score(score, metrics, clock)
    if Role.WORKER in settings.role:
        collectors["worker_utilization"] = lambda: watch_utilization(
            lambda: pipeline.waiting_seconds > 0, metrics, clock
        )
    return collectors


def show_usage(shared: Shared, pipeline: Pipeline) -> None:
    """Set the metrics of tasks and workers, which are read at each scrape, and of the prefetch count."""
    metrics = shared.metrics
    loop = asyncio.get_running_loop()
    metrics.active_tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
    metrics.active_workers.set_function(lambda: pipeline.receiving)
    if Role.WORKER in shared.settings.role:
        metrics.prefetch_count.set(pipeline.prefetch)


def _circuit_of(settings: Settings, pipeline: Pipeline) -> CircuitNow | None:
    """Return a function that tells the circuit's state, and why it is not closed; None without the role worker."""
    if Role.WORKER not in settings.role:
        return None
    circuit = pipeline.circuit

    def now() -> tuple[str, str | None]:
        reason = f"{circuit.cause_text}: {circuit.reason}" if circuit.cause else None
        return circuit.state.name.lower().replace("_", "-"), reason

    return now
