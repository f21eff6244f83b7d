"""The parts of the role worker."""

from random import Random

from birthday.channels import Channel
from birthday.wiring.shared import Shared
from birthday.worker.claimer import Claimer
from birthday.worker.limits import Limits
from birthday.worker.pipeline import Pipeline
from birthday.worker.sender import Sender
from birthday.worker.settler import Settler
from birthday.worker.texts import Texts


def make_pipeline(shared: Shared, channel: Channel, random: Random | None = None) -> Pipeline:
    """Return the delivery pipeline; ``random`` is the source of jitter."""
    settings, pool, broker = shared.settings, shared.pool, shared.broker
    clock, metrics = shared.clock, shared.metrics
    random = random or Random()  # noqa: S311 - jitter, no secret
    retry = settings.retry
    limits = Limits(settings.worker_concurrency, settings.message_service_timeout, ahead=retry.unknown)
    texts, catch_up = Texts(pool), settings.catch_up_window
    claimer = Claimer(
        pool,
        broker,
        clock,
        metrics,
        shared.pauses,
        catch_up,
        limits.lease,
        random,
        texts,
        shared.tracing,
        retry.unknown,
    )
    settler = Settler(pool, broker, clock, metrics, retry, random)
    sender = Sender(channel, clock, metrics, shared.tracing)
    return Pipeline(broker, claimer, sender, settler, limits, shared.pauses, clock, random)
