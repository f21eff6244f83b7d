"""What each process keeps a copy of, so that using it needs no I/O: the pauses and the API keys."""

import asyncpg

from birthday.clock import Clock
from birthday.config import Settings, check_listener
from birthday.operations.keys import Keys
from birthday.operations.pauses import Pauses
from birthday.telemetry.metrics import Metrics


async def read_copies(settings: Settings, pool: asyncpg.Pool, clock: Clock, metrics: Metrics) -> tuple[Pauses, Keys]:
    """Read both for the first time.

    Raises:
        ConfigurationError: if there are no keys, and other hosts could use the API.
        UnavailableError: if the database cannot be used.
    """
    pauses = Pauses(pool, clock, metrics)
    await pauses.refresh()
    keys = Keys(pool, clock, metrics, settings.api_keys)
    await keys.refresh()
    check_listener(settings, has_keys=keys.required)
    return pauses, keys
