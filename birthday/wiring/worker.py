"""The parts of the role worker."""

from random import Random

import asyncpg

from birthday.channels import Channel
from birthday.config import Settings
from birthday.core.unsubscribe import Links
from birthday.operations.templates.compiling import Compiler
from birthday.store.connection import borrow
from birthday.store.suppressions import read_links
from birthday.wiring.shared import Shared
from birthday.worker.claimer import Claimer
from birthday.worker.jobs import UnsubscribeUrl, no_url
from birthday.worker.limits import Limits
from birthday.worker.pipeline import Pipeline
from birthday.worker.sender import Sender
from birthday.worker.settler import Settler
from birthday.worker.texts import Texts


def make_pipeline(shared: Shared, channel: Channel, compiler: Compiler, random: Random | None = None) -> Pipeline:
    """Return the delivery pipeline; ``random`` is the source of jitter."""
    settings, pool, broker = shared.settings, shared.pool, shared.broker
    clock, metrics = shared.clock, shared.metrics
    random = random or Random()  # noqa: S311 - jitter, no secret
    retry = settings.retry
    limits = Limits(settings.worker_concurrency, settings.message_service_timeout, ahead=retry.unknown)
    texts, catch_up = Texts(pool, compiler), settings.catch_up_window
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
    sender = Sender(channel, clock, metrics, shared.tracing, unsubscribe_urls(shared))
    return Pipeline(broker, claimer, sender, settler, limits, shared.pauses, clock, random)


async def open_links(settings: Settings, pool: asyncpg.Pool) -> Links | None:
    """Read from the database what makes unsubscribe links; None without PUBLIC_URL.

    Raises:
        UnavailableError: if the database cannot be used.
    """
    if settings.public_url is None:
        return None
    async with borrow(pool) as connection:
        return await read_links(connection)


def unsubscribe_urls(shared: Shared) -> UnsubscribeUrl:
    """Return what makes the unsubscribe link of a greeting."""
    base, links = shared.settings.public_url, shared.links
    if base is None or links is None:
        return no_url
    prefix = f"{base.rstrip('/')}/unsubscribe/"
    return lambda user_id, email: prefix + links.make_token(user_id, email)
