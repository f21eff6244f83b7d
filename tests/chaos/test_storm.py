"""Everything at once: the scenario by which the promise of the product is judged."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from tests.support.chaos import FULL, Crowd, Receiver, fleet
from tests.support.message_service import MessageService
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import RabbitMQServer

COUNT = 4000 if FULL else 1000
# What a worker has in flight is what its death can make repeat.
CONCURRENCY = 20 if FULL else 8


async def test_everything_dies_in_the_middle_and_everybody_is_greeted(
    crowd: Crowd,
    database_url: str,
    queue_url: str | None,
    postgres_server: PostgresServer,
    rabbitmq_server: RabbitMQServer,
) -> None:
    """Workers, a scheduler, RabbitMQ and PostgreSQL are killed under load, and the service fails, hangs and is late.

    Nobody is missed, nobody is greeted under two keys, and fewer than 3 % are greeted again under the same key.
    """
    receiver = Receiver(delay=timedelta(milliseconds=100))
    settings = {"WORKER_CONCURRENCY": str(CONCURRENCY), "CIRCUIT_BREAKER_RESET_TIMEOUT": "5s"}
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, **settings) as processes,
    ):
        schedulers, workers = await asyncio.gather(
            processes.start_many("scheduler", 2), processes.start_many("worker", 3)
        )

        def misbehave() -> None:
            receiver.fail, receiver.busy, receiver.hang, receiver.close, receiver.late = 0.1, 0.01, 0.005, 0.005, 0.002

        async def kill_rabbitmq() -> None:
            if queue_url is not None:
                await asyncio.to_thread(rabbitmq_server.restart)
            misbehave()

        faults: list[Callable[[], Awaitable[object]]] = [
            kill_rabbitmq,
            lambda: processes.replace(workers[0]),
            lambda: processes.replace(schedulers[0]),
            lambda: processes.replace(workers[1]),
            postgres_server.restart,
        ]
        if FULL:
            # What a crash of RabbitMQ takes out of a retry queue comes back within two minutes: too long for the other.
            misbehave()
        await crowd.gather(COUNT)
        for number, fault in enumerate(faults, start=1):
            await crowd.wait_for_delivered(COUNT * number // (len(faults) + 2), 60)
            await fault()
        await crowd.wait_until_settled(300 if FULL else 90)
        audit = await crowd.audit(receiver)
    # One in 100,000 fails five times in a row.
    audit.verify(repeats=COUNT * 3 // 100 - 1, failed=2)
