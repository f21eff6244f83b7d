"""Chooses the next probe while the circuit is not closed: a message that has not failed yet, if there is one."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Final

import asyncpg

from birthday.broker import Broker, Consumer, Delivery
from birthday.clock import Clock
from birthday.store.claims import read_last_failures
from birthday.worker.retrying import retry_outage, retry_publish

_AWAY: Final = timedelta(seconds=5)
"""How long messages that have failed go back to the queue. Meanwhile the messages behind them come."""


class Probes:
    """Deliveries of one consumer that may become probes. Those that are put away are in the queue again."""

    def __init__(self, pool: asyncpg.Pool, broker: Broker, clock: Clock, random: Random) -> None:
        """Start empty."""
        self._pool = pool
        self._broker = broker
        self._clock = clock
        self._random = random
        self._fresh: list[Delivery] = []
        self._failed: list[tuple[tuple[bool, datetime], Delivery]] = []
        """Messages that are not at fault come before those that are. Among each, the earliest failure comes first."""

    def __len__(self) -> int:
        return len(self._fresh) + len(self._failed)

    @property
    def has_fresh(self) -> bool:
        """Whether a held message had not failed yet when it came."""
        return bool(self._fresh)

    async def add(self, deliveries: Sequence[Delivery]) -> None:
        """Hold these deliveries as well."""
        ids = [delivery.message_id for delivery in deliveries if delivery.message_id is not None]
        failures = await retry_outage("claim", lambda: read_last_failures(self._pool, ids), self._clock, self._random)
        known = [(failures.get(delivery.message_id) if delivery.message_id else None) for delivery in deliveries]
        self._fresh += [one for one, failure in zip(deliveries, known, strict=True) if failure is None]
        self._failed += [(failure, one) for one, failure in zip(deliveries, known, strict=True) if failure is not None]
        self._failed.sort(key=lambda failed: failed[0])

    async def put_away(self, consumer: Consumer) -> None:
        """Give all held messages that have failed, except one, back to the queue for 5 s, to make room for others.

        Raises:
            UnavailableError: the queue is gone. It redelivers everything that is held.
        """
        away = [one for _, one in self._failed[1:]]
        del self._failed[1:]
        ids = [one.message_id for one in away if one.message_id is not None]
        await retry_publish(lambda: self._broker.publish(ids, _AWAY), consumer, self._clock, self._random)
        await consumer.ack(away)

    def choose(self) -> list[Delivery]:
        """Return the next probe, or an empty list if nothing is held.

        Among messages that have not failed yet the choice is random, because the head of the queue may be full of
        messages that make the service fail.
        """
        if self._fresh:
            return [self._fresh.pop(self._random.randrange(len(self._fresh)))]
        return [self._failed.pop(0)[1]] if self._failed else []

    def take(self, most: int) -> list[Delivery]:
        """Return up to ``most`` held deliveries. Messages that have not failed come first."""
        taken, self._fresh = self._fresh[:most], self._fresh[most:]
        left = most - len(taken)
        taken += [one for _, one in self._failed[:left]]
        del self._failed[:left]
        return taken
