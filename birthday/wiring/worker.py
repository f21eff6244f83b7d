"""The parts of the role worker."""

from functools import partial
from random import Random

from birthday.channels import Channel
from birthday.channels.breaker import Cause, CircuitBreaker
from birthday.telemetry.metrics import Metrics
from birthday.wiring.shared import Shared
from birthday.worker.intake import Intake
from birthday.worker.pipeline import Limits, Pipeline
from birthday.worker.sender import Sender
from birthday.worker.settler import Settler


def make_pipeline(shared: Shared, channel: Channel, random: Random | None = None) -> Pipeline:
    """Return the delivery pipeline; ``random`` is where jitter comes from."""
    settings, pool, broker = shared.settings, shared.pool, shared.broker
    clock, metrics = shared.clock, shared.metrics
    random = random or Random()  # noqa: S311 - jitter, no secret
    _show_cause(metrics, None)
    limits = Limits(settings.worker_concurrency, settings.message_service_timeout)
    breaker = CircuitBreaker(
        settings.circuit_breaker_failure_threshold,
        settings.circuit_breaker_reset_timeout,
        clock,
        lambda state: metrics.circuit_breaker_state.set(state.value),
        partial(_show_cause, metrics),
    )
    intake = Intake(pool, broker, clock, metrics, settings.catch_up_window, limits.lease, random, shared.tracing)
    settler = Settler(pool, broker, clock, metrics, settings.retry, random)
    sender = Sender(channel, breaker, clock, metrics, shared.tracing)
    return Pipeline(broker, intake, sender, settler, limits, shared.pauses, clock, random)


def _show_cause(metrics: Metrics, cause: Cause | None) -> None:
    """Show why the circuit is not closed, or that it is."""
    for each in Cause:
        metrics.circuit_breaker_open.labels(each.value).set(each is cause)
