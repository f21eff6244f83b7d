"""Pausing: an operator stops messages of a type, in all processes, until they are resumed.

Pauses are stored in the database. One task of each process reads them every two seconds. Publishers and consumers use
this copy, which needs no I/O.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import asyncpg
import structlog

from birthday.clock import Clock
from birthday.core.message import BIRTHDAY
from birthday.errors import FieldError, InvalidInputError, UnavailableError
from birthday.store.changes import Actor
from birthday.store.connection import DATABASE_ERRORS, borrow, stay_cancelled
from birthday.store.pauses import EVERY_OTHER, Pause, in_force, read_pauses, set_paused
from birthday.store.planning import read_planned_types
from birthday.store.templates import read_types
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

EVERY_SECONDS: Final = 2.0


async def switch(
    pool: asyncpg.Pool, message_type: str | None, *, paused: bool, now: datetime, by: Actor
) -> list[Pause]:
    """Pause or resume one type, or everything if it is None. Return the types that are paused then.

    Raises:
        InvalidInputError: if there is no such type.
        UnavailableError: if the database cannot be used.
    """
    async with borrow(pool) as connection, connection.transaction():
        types = await read_types(connection)
        if message_type is not None and message_type not in types:
            detail = f"'{message_type}' is no message type; accepted: {', '.join(types)}"
            raise InvalidInputError(FieldError("", detail, "type"))
        wanted = [*types, EVERY_OTHER] if message_type is None else [message_type]
        await set_paused(connection, wanted, paused=paused, now=now, by=by)
        return in_force(await read_pauses(connection))


def is_paused(pauses: Mapping[str, Pause], message_type: str) -> bool:
    """Say whether a type is paused: itself, or with all others before it had a pause of its own."""
    pause = pauses.get(message_type) or pauses.get(EVERY_OTHER)
    return pause is not None and pause.is_paused


class Pauses:
    """The pauses that this process knows. ``refresh`` them before the first use, then ``watch``."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock, metrics: Metrics) -> None:
        """Count nothing as paused before the first ``refresh``."""
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self.types: tuple[str, ...] = (BIRTHDAY,)
        """The types that are planned."""
        self.paused: tuple[str, ...] = ()
        """The types of which no message may be published or claimed."""
        self._known: dict[str, Pause] = {}
        self._since: dict[str, datetime] = {}
        self._changed = asyncio.Condition()

    @property
    def held(self) -> bool:
        """Whether every type is paused: then nothing may be consumed."""
        return set(self.types) <= set(self.paused)

    def is_paused(self, message_type: str) -> bool:
        """Say whether this type is paused."""
        return is_paused(self._known, message_type)

    def resumed_since(self, message_type: str, instant: datetime) -> bool:
        """Say whether the type was resumed after ``instant`` and is not paused now.

        A pause ends when this process sees its end. If this process first reads the pause after its end, the operator's
        timestamp counts. That clock may be wrong, so a timestamp in the future is replaced by the time of reading.
        """
        pause = self._known.get(message_type) or self._known.get(EVERY_OTHER)
        return pause is not None and not pause.is_paused and self._since[pause.message_type] > instant

    async def wait_until(self, *, held: bool) -> None:
        """Return as soon as every type is paused or, if ``held`` is false, one is not."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.held is held)

    async def watch(self) -> None:
        """Refresh regularly until cancelled. While the database is away, the last known pauses hold."""
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            try:
                await self.refresh()
            except (UnavailableError, *DATABASE_ERRORS) as error:
                stay_cancelled()
                self._metrics.collector_errors.labels("pauses").inc()
                log.debug("pauses.unavailable", error=error)
                # No other task queries as regularly. If the network has silently dropped connections, each of them
                # would delay its next borrower by half a minute, so the pool must not lend them again.
                await self._pool.expire_connections()

    async def refresh(self) -> None:
        """Read the pauses once; log changes, and wake all who wait for one."""
        async with borrow(self._pool) as connection:
            pauses = await read_pauses(connection)
            self.types = (BIRTHDAY, *await read_planned_types(connection))
        now = self._clock.now()
        for pause in pauses:
            known = self._known.get(pause.message_type)
            if known is None:
                self._since[pause.message_type] = min(pause.changed_at, now)
            elif known.changed_at != pause.changed_at:
                self._since[pause.message_type] = now
        self._known = {pause.message_type: pause for pause in pauses}
        shown = sorted({*self.types, *self._known} - {EVERY_OTHER})
        before, self.paused = self.paused, tuple(filter(self.is_paused, shown))
        for pause in pauses:
            if pause.message_type in shown and pause.is_paused is not (pause.message_type in before):
                log.info(
                    "service.paused" if pause.is_paused else "service.resumed",
                    message_type=pause.message_type,
                    by=pause.changed_by,
                    at=pause.changed_at.isoformat(),
                )
        for message_type in shown:
            self._metrics.paused.labels(message_type).set(message_type in self.paused)
        async with self._changed:
            self._changed.notify_all()
