"""The plain path of a message: read it, claim it, POST it, record it, ack it, one after the other and one at a time.

Run as ``python -m benchmarks.plain_worker DATABASE_URL AMQP_URL MESSAGE_SERVICE_URL``; it prints a line once it
consumes. It is what a worker looks like that gathers nothing into batches.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import aiormq
import asyncpg
import orjson
import uvloop
from aiohttp import ClientSession
from aiormq.abc import DeliveredMessage

QUEUE = "birthday_messages"
LEASE = timedelta(seconds=50)


async def work(database: str, queue: str, service: str) -> None:
    """Deliver until killed."""
    connection = await aiormq.connect(queue)
    channel = await connection.channel()
    await channel.basic_qos(prefetch_count=1)
    async with asyncpg.create_pool(database, min_size=2, max_size=4) as pool, ClientSession() as session:

        async def deliver(delivery: DeliveredMessage) -> None:
            message_id = orjson.loads(delivery.body)["messageId"]
            row = await pool.fetchrow(
                """
                SELECT u.first_name, u.last_name, u.email
                FROM message_logs m JOIN users u ON u.id = m.user_id
                WHERE m.id = $1 AND m.status = 'queued' AND u.deleted_at IS NULL
                """,
                message_id,
            )
            assert row is not None
            await pool.execute(
                """
                UPDATE message_logs SET status = 'sending', attempts = attempts + 1, updated_at = $2,
                                        lease_until = clock_timestamp() + $3::interval
                WHERE id = $1 AND status = 'queued'
                """,
                message_id,
                datetime.now(UTC),
                LEASE,
            )
            letter = {
                "email": row["email"],
                "message": f"Hey, {row['first_name']} {row['last_name']} it's your birthday",
            }
            headers = {"Content-Type": "application/json", "Idempotency-Key": message_id}
            async with session.post(f"{service}/send", data=orjson.dumps(letter), headers=headers) as response:
                await response.read()
            now = datetime.now(UTC)
            await pool.execute(
                """
                UPDATE message_logs SET status = 'delivered', sent_at = $2, delivered_at = $2, updated_at = $2
                WHERE id = $1 AND status = 'sending'
                """,
                message_id,
                now,
            )
            assert delivery.delivery_tag is not None
            await channel.basic_ack(delivery.delivery_tag)

        await channel.basic_consume(QUEUE, deliver)
        print("consuming", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1], sys.argv[2], sys.argv[3]))
