"""What only the broker on PostgreSQL does: leases, its connection, and a queue that stays fast among dead letters."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from birthday.broker import Delivery, QueueStats
from birthday.broker.postgres import CLAIM, PostgresBroker, PostgresConsumer
from birthday.errors import UnavailableError
from tests.support.postgres import PostgresServer

SECONDS = 10.0
"""How long something may take that should take no time."""


@pytest.fixture
def broker(pool: asyncpg.Pool) -> PostgresBroker:
    """Return a broker whose leases outlast every test."""
    return PostgresBroker(pool, lease=timedelta(minutes=5))


async def receive(consumer: PostgresConsumer, number: int) -> list[Delivery]:
    """Receive exactly so many deliveries."""
    received: list[Delivery] = []
    async with asyncio.timeout(SECONDS):
        while len(received) < number:
            received += await consumer.receive(number - len(received), 0)
    return received


async def becomes_true(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(SECONDS):
        while not await condition():
            await asyncio.sleep(0.02)


class TestLeases:
    """Who holds a row, and for how long."""

    async def test_a_living_consumer_keeps_what_it_has(self, pool: asyncpg.Pool) -> None:
        """While a consumer lives, its leases move on, so that nobody else gets what it holds."""
        broker = PostgresBroker(pool, lease=timedelta(seconds=0.6))
        await broker.publish([uuid4()])
        async with broker.consume(prefetch=1) as consumer:
            await receive(consumer, 1)
            first = await pool.fetchval("SELECT lease_until FROM queue_messages")

            async def first_lease_is_over() -> bool:
                lease_until: datetime
                instant: datetime
                [(lease_until, instant)] = await pool.fetch("SELECT lease_until, clock_timestamp() FROM queue_messages")
                assert lease_until > instant
                return instant > first

            await becomes_true(first_lease_is_over)
            assert (await broker.stats()).unacked == 1

    async def test_what_was_taken_over_is_left_alone(self, broker: PostgresBroker, pool: asyncpg.Pool) -> None:
        """A consumer whose lease ran out, and who wakes up, cannot ack, reject or put back what another one has by now."""
        ids = [uuid4() for _ in range(3)]
        await broker.publish(ids)
        async with broker.consume(prefetch=3) as other:
            async with broker.consume(prefetch=3) as sleeper:
                lost = await self._take_from_both(sleeper, other, pool)
                taken = await receive(other, len(lost))
                assert {delivery.message_id for delivery in taken} == {delivery.message_id for delivery in lost}
                assert all(delivery.redelivered for delivery in taken)
                await sleeper.ack(lost[:1])
                await sleeper.reject(lost[1:])
            stats = await broker.stats()
            assert (stats.unacked, stats.dead, stats.ready) == (3, 0, 0)

    async def test_rows_put_back_wake_the_others(self, broker: PostgresBroker) -> None:
        """A consumer that leaves notifies those that wait."""
        message_id = uuid4()
        async with broker.consume(prefetch=1) as waiting:
            async with broker.consume(prefetch=1) as leaving:
                await broker.publish([message_id, uuid4()])
                [held] = await receive(leaving, 1)
                await waiting.ack(await receive(waiting, 1))
            [delivery] = await receive(waiting, 1)
            assert delivery.message_id == held.message_id
            assert delivery.redelivered

    async def _take_from_both(
        self, sleeper: PostgresConsumer, other: PostgresConsumer, pool: asyncpg.Pool
    ) -> list[Delivery]:
        raise NotImplementedError
