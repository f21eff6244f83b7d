"""Which message is the next probe of a circuit that is not closed: one that has not failed yet, if there is one."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Final

import asyncpg

from birthday.broker import Broker, Consumer, Delivery
from birthday.clock import Clock
from birthday.store.messages import read_last_failures
from birthday.worker.retrying import retry_outage

_AWAY: Final = timedelta(seconds=5)
"""How long messages are put away that have failed: until those behind them in the queue have come."""


class Probes:
    """What one consumer has brought while its worker chooses probes, until it is taken. Put away, the queue has it."""

    def __init__(self, pool: asyncpg.Pool, broker: Broker, clock: Clock, random: Random) -> None:
        """Hold nothing at first."""
        self._pool = pool
        self._broker = broker
        self._clock = clock
        self._random = random
        self._fresh: list[Delivery] = []
        self._failed: list[tuple[tuple[bool, datetime], Delivery]] = []
        """Those last that are at fault themselves, and of these and the others, those last that failed last."""

    def __len__(self) -> int:
        return len(self._fresh) + len(self._failed)

    @property
    def has_fresh(self) -> bool:
        """Whether something is held that has not failed yet, as far as was known when it came."""
        return bool(self._fresh)

    async def add(self, deliveries: Sequence[Delivery]) -> None:
        """Hold these as well."""
        ids = [delivery.message_id for delivery in deliveries if delivery.message_id is not None]
        failures = await retry_outage("claim", lambda: read_last_failures(self._pool, ids), self._clock, self._random)
        known = [(failures.get(delivery.message_id) if delivery.message_id else None) for delivery in deliveries]
        self._fresh += [one for one, failure in zip(deliveries, known, strict=True) if failure is None]
        self._failed += [(failure, one) for one, failure in zip(deliveries, known, strict=True) if failure is not None]
        self._failed.sort(key=lambda failed: failed[0])

    async def put_away(self, consumer: Consumer) -> None:
        """Give what has failed back to the queue for a while, but for one: it makes room for what has not.

        Raises:
            UnavailableError: the queue is gone, and brings back all that is held.
        """
        away = [one for _, one in self._failed[1:]]
        del self._failed[1:]
        await self._broker.publish([one.message_id for one in away if one.message_id is not None], _AWAY)
        await consumer.ack(away)

    def choose(self) -> list[Delivery]:
        """Return the next probe, none if nothing is held. Of those that have not failed, by chance.

        The head of the queue may be full of messages that the service fails over.
        """
        if self._fresh:
            return [self._fresh.pop(self._random.randrange(len(self._fresh)))]
        return [self._failed.pop(0)[1]] if self._failed else []

    def take(self, most: int) -> list[Delivery]:
        """Return up to ``most`` of what is held, those first that have not failed."""
        taken, self._fresh = self._fresh[:most], self._fresh[most:]
        left = most - len(taken)
        taken += [one for _, one in self._failed[:left]]
        del self._failed[:left]
        return taken
