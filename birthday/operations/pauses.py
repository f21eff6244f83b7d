"""Pausing: an operator stops messages of a type, in all processes, until they are resumed.

What is paused stands in the database. Each process reads it every two seconds, in one task; whoever publishes or
consumes asks this copy of it, which costs nothing.
"""

import asyncio
from datetime import datetime
from typing import Final

import asyncpg
import structlog

from birthday.clock import Clock
from birthday.core.message import BIRTHDAY
from birthday.errors import UnavailableError
from birthday.store.connection import DATABASE_ERRORS, borrow, stay_cancelled
from birthday.store.pauses import Pause, read_pauses
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

MESSAGE_TYPES: Final = (BIRTHDAY,)
"""What can be paused."""

EVERY_SECONDS: Final = 2.0


class Pauses:
    """What is paused, as this process knows it. ``refresh`` it before the first question, then ``watch``."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock, metrics: Metrics) -> None:
        """Take nothing for paused before the database has been asked."""
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self.paused: tuple[str, ...] = ()
        self._known: dict[str, Pause] = {}
        self._since: dict[str, datetime] = {}
        self._changed = asyncio.Condition()

    def is_paused(self, message_type: str) -> bool:
        """Say whether nothing of this type may be published or consumed."""
        return message_type in self.paused

    def resumed_since(self, message_type: str, instant: datetime) -> bool:
        """Say whether there was a pause after ``instant`` that is over.

        It ended when this process saw it end. Of one that was over before, the operator's clock says when; it may be
        wrong, but that was not in the future.
        """
        pause = self._known.get(message_type)
        return pause is not None and not pause.is_paused and self._since[message_type] > instant

    async def wait_until(self, message_type: str, *, paused: bool) -> None:
        """Return as soon as the type is paused, or is not."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.is_paused(message_type) is paused)

    async def watch(self) -> None:
        """Keep up with the database until cancelled. While it is away, what was known last holds."""
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            try:
                await self.refresh()
            except (UnavailableError, *DATABASE_ERRORS) as error:
                stay_cancelled()
                self._metrics.collector_errors.labels("pauses").inc()
                log.debug("pauses.unavailable", error=error)
                # Nobody else asks so regularly. If the network has dropped connections without a word, each of them
                # would cost whoever is lent it next half a minute: none is lent again.
                await self._pool.expire_connections()

    async def refresh(self) -> None:
        """Ask the database once; log what has changed, and wake whom it concerns.

        Raises:
            UnavailableError: if the database cannot be used.
        """
        async with borrow(self._pool) as connection:
            pauses = await read_pauses(connection)
        now = self._clock.now()
        for pause in pauses:
            known = self._known.get(pause.message_type)
            if known is None:
                self._since[pause.message_type] = min(pause.changed_at, now)
            elif known.changed_at != pause.changed_at:
                self._since[pause.message_type] = now
        before, self.paused = self.paused, tuple(pause.message_type for pause in pauses if pause.is_paused)
        self._known = {pause.message_type: pause for pause in pauses}
        for pause in pauses:
            if pause.is_paused is not (pause.message_type in before):
                log.info(
                    "service.paused" if pause.is_paused else "service.resumed",
                    message_type=pause.message_type,
                    by=pause.changed_by,
                    at=pause.changed_at.isoformat(),
                )
        for message_type in MESSAGE_TYPES:
            self._metrics.paused.labels(message_type).set(self.is_paused(message_type))
        async with self._changed:
            self._changed.notify_all()
