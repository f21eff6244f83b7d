"""Messages that failed and dead letters, in any number, without waiting for a service to refuse them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from birthday.broker import Broker
from birthday.core.message import ErrorType
from tests.support.product import eventually


async def store_failed(
    pool: asyncpg.Pool,
    count: int,
    failed_at: datetime,
    error_type: ErrorType = ErrorType.EXTERNAL_API_ERROR,
    user_id: UUID | None = None,
) -> list[UUID]:
    """Store so many messages that failed at an instant, each of a live user, or one of ``user_id``; return their ids.

    The dead-letter queue knows nothing of them.
    """
    rows = await pool.fetch(
        """
        WITH greeted AS (
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at,
                               updated_at)
            SELECT id, 'Ada', 'Lovelace', id || '@example.com', '1990-03-01', 'UTC', $1::timestamptz, $1, $1
            FROM (SELECT coalesce($4, gen_random_uuid()) AS id FROM generate_series(1, $2)) AS numbered
            ON CONFLICT DO NOTHING
            RETURNING id
        )
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                                  attempts, error_type, error_detail, created_at, updated_at)
        SELECT gen_random_uuid(), id, 2026, '2026-03-01', $1, $1, $1, 'failed', 5, $3, 'refused',
               $1, $1
        FROM greeted
        RETURNING id
        """,
        failed_at,
        count,
        error_type,
        user_id,
    )
    return [UUID(bytes=row["id"].bytes) for row in rows]


async def bury(broker: Broker, ids: Sequence[UUID]) -> None:
    """Let copies of messages become dead letters, and wait until they are."""
    before = (await broker.stats()).dead
    await broker.publish(ids)
    async with broker.consume(prefetch=1000) as consumer:
        left = Counter(ids)
        while left.total():
            deliveries = [one for one in await consumer.receive(1000, 0.05) if one.message_id in left]
            await consumer.reject(deliveries)
            left.subtract(one.message_id for one in deliveries if one.message_id)
        await eventually(lambda: _are_dead(broker, before + len(ids)), f"{len(ids)} more dead letters", 60)


async def dead_ids(broker: Broker) -> list[UUID | None]:
    """Return the message id of each dead letter, None for what has none."""
    found: list[UUID | None] = []
    async with asyncio.timeout(60), broker.dead_letters() as browsing:
        while letters := await browsing.take():
            found += [letter.message_id for letter in letters]
    return found


async def take_all(broker: Broker, count: int) -> list[UUID | None]:
    """Receive so many messages from the queue, ack them, and return their ids."""
    received: list[UUID | None] = []
    async with asyncio.timeout(60), broker.consume(prefetch=1000) as consumer:
        while len(received) < count:
            deliveries = await consumer.receive(1000, 0.05)
            received += [delivery.message_id for delivery in deliveries]
            await consumer.ack(deliveries)
    return received


async def _are_dead(broker: Broker, count: int) -> bool:
    return (await broker.stats()).dead == count
