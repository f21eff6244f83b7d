"""What the parts of one process share."""

from dataclasses import dataclass

import asyncpg

from birthday.broker import Broker
from birthday.clock import CheckedClock
from birthday.config import Settings
from birthday.core.unsubscribe import Links
from birthday.operations.pauses import Pauses
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing


@dataclass(frozen=True, slots=True)
class Shared:
    """The settings, and what is opened once for all roles."""

    settings: Settings
    pool: asyncpg.Pool
    broker: Broker
    pauses: Pauses
    clock: CheckedClock
    metrics: Metrics
    tracing: Tracing = NO_TRACING
    links: Links | None = None
    """What makes unsubscribe links; None without PUBLIC_URL."""
