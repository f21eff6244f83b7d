"""The checks behind ``/ready`` and ``/health``: of dependencies, and of the process itself."""

from collections.abc import Mapping

from birthday.channels import Channel
from birthday.config import Role
from birthday.errors import UnavailableError, WrongClockError
from birthday.operations.readiness import (
    BACKGROUND,
    CLOCK,
    CONSUMER,
    EVENT_LOOP,
    LOG,
    QUEUE,
    SCHEDULER,
    SENDING,
    Check,
    Readiness,
)
from birthday.scheduler.loop import DispatchProgress
from birthday.telemetry.logs import LogFile
from birthday.telemetry.loop_lag import LoopWatch
from birthday.telemetry.supervision import Supervisor
from birthday.wiring.database import database_checks
from birthday.wiring.queue import needs_queue
from birthday.wiring.shared import Shared
from birthday.worker.pipeline import Pipeline
from birthday.worker.watchdog import Watchdog

STUCK_SECONDS = 10.0
"""The process is not ready if storing a claim or outcome, or a failure of the dispatcher, lasts longer than this."""


def make_readiness(
    shared: Shared, channel: Channel, own: Mapping[str, Check], can_wait: Mapping[str, Check] | None = None
) -> Readiness:
    """Return the readiness of the process: checks of its dependencies, and of its roles (``own`` and ``can_wait``).

    The queue is a needed dependency only if the roles need it; otherwise its state is only shown.
    """
    queue: dict[str, Check] = {QUEUE: shared.broker.check}
    if needs_queue(shared.settings):
        return Readiness(database_checks(shared.pool) | queue, channel.check, own, can_wait=can_wait)
    return Readiness(database_checks(shared.pool), channel.check, own, queue, can_wait)


def own_checks(
    shared: Shared, supervisor: Supervisor, progress: DispatchProgress, pipeline: Pipeline, watchdog: Watchdog
) -> dict[str, Check]:
    """Return the checks, by name, that the process makes of itself and must pass to be ready."""
    clock, roles = shared.clock, shared.settings.role

    async def check_clock() -> None:
        if clock.fault is not None:
            raise WrongClockError(clock.fault)

    async def check_dispatcher() -> None:
        if progress.failing_seconds > STUCK_SECONDS:
            raise UnavailableError("scheduler", f"the dispatcher has been failing for {progress.failing_seconds:.0f} s")

    checks: dict[str, Check] = {BACKGROUND: supervisor.check, CLOCK: check_clock}
    if Role.SCHEDULER in roles:
        checks[SCHEDULER] = check_dispatcher
    if Role.WORKER in roles:
        checks[CONSUMER] = _worker_check(shared, pipeline, watchdog)
    return checks


def _worker_check(shared: Shared, pipeline: Pipeline, watchdog: Watchdog) -> Check:
    """Return the check that the role worker takes messages and stores their outcomes."""

    async def check_worker() -> None:
        if pipeline.stuck_seconds > STUCK_SECONDS:
            raise UnavailableError(
                "consumer", f"the worker has been trying for {pipeline.stuck_seconds:.0f} s to store what it does"
            )
        if shared.pauses.held or shared.clock.fault is not None:
            return
        if not pipeline.receiving:
            raise UnavailableError("consumer", "the worker has no subscription to the queue; it is trying to get one")
        if watchdog.suspicious:
            raise UnavailableError("consumer", "messages wait in the queue, and the worker's subscription brings none")

    return check_worker


def shown_checks(shared: Shared, pipeline: Pipeline, loop_watch: LoopWatch, logs: LogFile) -> dict[str, Check]:
    """Return the checks, by name, whose failure is only shown: that the process runs, logs and, as a worker, sends."""

    async def check_sending() -> None:
        if hindrance := pipeline.hindrance:
            raise UnavailableError("sending", hindrance)

    checks: dict[str, Check] = {EVENT_LOOP: loop_watch.check, LOG: logs.check}
    return checks | {SENDING: check_sending} if Role.WORKER in shared.settings.role else checks
