"""The parts of the role scheduler, some of which commands use as well."""

from datetime import timedelta
from random import Random

import asyncpg

from birthday.channels.webhook import WebhookReceiver
from birthday.clock import Clock
from birthday.config import Settings
from birthday.core.signing import parse_signing_secrets
from birthday.operations.audit import Auditor
from birthday.operations.explain import Explainer
from birthday.operations.forecast import Forecaster
from birthday.scheduler.dispatcher import Dispatcher
from birthday.scheduler.events import EventSender
from birthday.scheduler.janitor import Janitor
from birthday.scheduler.loop import DispatchProgress, Schedule, run_scheduler
from birthday.scheduler.planner import Planner
from birthday.store.users import Planning
from birthday.wiring.channel import network
from birthday.wiring.shared import Shared


def make_planning(settings: Settings) -> Planning:
    """Return when messages are due, and how far ahead they are planned."""
    return Planning(settings.rules, settings.plan_horizon)


def make_auditor(settings: Settings, pool: asyncpg.Pool) -> Auditor:
    """Return an auditor that knows how long messages are kept."""
    return Auditor(pool, make_planning(settings), timedelta(days=settings.retention_days))


def make_explainer(settings: Settings, pool: asyncpg.Pool) -> Explainer:
    """Return an explainer."""
    return Explainer(pool, make_planning(settings), settings.catch_up_window)


def make_planner(shared: Shared) -> Planner:
    """Return a planner."""
    settings = shared.settings
    return Planner(shared.pool, shared.metrics, make_planning(settings), settings.catch_up_window, shared.tracing)


def make_dispatcher(shared: Shared) -> Dispatcher:
    """Return a dispatcher."""
    catch_up, ahead = shared.settings.catch_up_window, shared.settings.dispatch_ahead
    return Dispatcher(shared.pool, shared.broker, shared.metrics, catch_up, shared.pauses, shared.tracing, ahead)


def make_janitor(shared: Shared) -> Janitor:
    """Return a janitor."""
    settings, pool = shared.settings, shared.pool
    retention = timedelta(days=settings.retention_days)
    auditor, forecaster = make_auditor(settings, pool), Forecaster(pool, settings.rules)
    return Janitor(
        pool, shared.broker, shared.metrics, settings.catch_up_window, retention, shared.pauses, auditor, forecaster
    )


def make_receiver(settings: Settings, clock: Clock) -> WebhookReceiver | None:
    """Return the receiver of delivery events; None without EVENTS_URL."""
    if settings.events_url is None or settings.events_secret is None:
        return None
    return WebhookReceiver(
        settings.events_url,
        parse_signing_secrets(settings.events_secret.get_secret_value()),
        network(settings),
        clock,
        allow_private=settings.events_allow_private,
    )


async def send_events(shared: Shared) -> None:
    """Send delivery events until cancelled, which needs EVENTS_URL."""
    receiver = make_receiver(shared.settings, shared.clock)
    if receiver is not None:
        random = Random()  # noqa: S311 - jitter, no secret
        await EventSender(shared.pool, receiver, shared.metrics, shared.clock, random).run()


async def schedule(shared: Shared, progress: DispatchProgress) -> None:
    """Run the role scheduler until cancelled."""
    settings = shared.settings
    ticks = Schedule(settings.cron_plan, settings.cron_recover, settings.cron_retention)
    planner, dispatcher, janitor = make_planner(shared), make_dispatcher(shared), make_janitor(shared)
    await run_scheduler(planner, dispatcher, janitor, ticks, shared.clock, shared.metrics, progress)
