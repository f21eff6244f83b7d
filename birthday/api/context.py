"""What the resources work with, handed to them by the composition root."""

from dataclasses import dataclass

import asyncpg
from aiohttp import web

from birthday.api.readiness import Readiness
from birthday.broker import Broker
from birthday.clock import Clock
from birthday.config import Settings
from birthday.pauses import Pauses
from birthday.store.users import Planning
from birthday.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Everything that answering a request needs."""

    pool: asyncpg.Pool
    broker: Broker
    clock: Clock
    metrics: Metrics
    settings: Settings
    readiness: Readiness
    pauses: Pauses

    @property
    def planning(self) -> Planning:
        """What planning depends on besides the user."""
        return Planning(self.settings.rules, self.settings.plan_horizon)


CONTEXT = web.AppKey("context", ApiContext)

CLIENT = web.RequestKey("client", str)
"""The name of the API key that the request came with."""

SUBJECT = web.RequestKey("subject", str)
"""The id of the user or message that the request is about."""
