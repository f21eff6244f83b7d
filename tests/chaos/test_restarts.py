"""Servers and processes that are killed and come back, again and again, while messages are under way."""

import asyncio
import signal
from datetime import timedelta

import pytest

from tests.support.chaos import FULL, POSTGRES, RABBITMQ, Crowd, Receiver, brokers, fleet, let_fault_last
from tests.support.message_service import MessageService
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import RabbitMQServer


async def test_rabbitmq_is_killed_and_restarted_under_load(
    crowd: Crowd, database_url: str, rabbitmq_url: str, rabbitmq_server: RabbitMQServer
) -> None:
    """Publisher and consumer come back by themselves every time; nobody is missed."""
    times, each = (20, 100) if FULL else (2, 150)
    receiver = Receiver(delay=timedelta(milliseconds=50))
    async with (
        MessageService(receiver) as service,
        fleet(database_url, rabbitmq_url, service.url, WORKER_CONCURRENCY="10") as processes,
    ):
        await asyncio.gather(processes.start("scheduler"), processes.start("worker"))
        for round_number in range(1, times + 1):
            await crowd.gather(each)
            await crowd.wait_for_delivered(each * (round_number - 1) + each // 3, 90)
            await asyncio.to_thread(rabbitmq_server.restart)
        await processes.wait_for_ready(200, 60)
        await crowd.wait_until_settled(400 if FULL else 150)
        audit = await crowd.audit(receiver)
    # A connection that breaks loses acks, not outcomes: what comes again is found delivered.
    audit.verify()


@brokers(POSTGRES)
async def test_postgresql_is_killed_and_restarted_under_load(
    crowd: Crowd, database_url: str, queue_url: str | None, postgres_server: PostgresServer
) -> None:
    """Immediate shutdown and crash recovery in the middle of claims and outcomes; nobody is missed, nobody doubled."""
    times, each = (10, 200) if FULL else (2, 200)
    receiver = Receiver(delay=timedelta(milliseconds=50))
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, WORKER_CONCURRENCY="10") as processes,
    ):
        await asyncio.gather(processes.start("scheduler"), processes.start("worker"))
        for round_number in range(1, times + 1):
            await crowd.gather(each)
            await crowd.wait_for_delivered(each * (round_number - 1) + each // 3, 90)
            await postgres_server.restart()
        await processes.wait_for_ready(200, 60)
        await crowd.wait_until_settled(150)
        audit = await crowd.audit(receiver)
    # What was being sent when the database died is stored when it is back, by the process that sent it.
    audit.verify(repeats=10 * times)


@brokers(RABBITMQ)
async def test_schedulers_are_killed_while_they_publish(crowd: Crowd, database_url: str, queue_url: str | None) -> None:
    """Between confirm and commit there is a moment: what it leaves is published again, and sent once."""
    kills, count = (30, 6000) if FULL else (4, 1200)
    receiver = Receiver()
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url) as processes,
    ):
        await processes.start("worker")
        schedulers = [await processes.start("scheduler"), await processes.start("scheduler")]
        for kill in range(kills):
            await crowd.gather(count // kills)
            # A scheduler looks every half second: at ever different moments of its burst.
            await let_fault_last(0.03 * (kill % 18))
            schedulers.append(await processes.replace(schedulers.pop(0)))
        await crowd.wait_until_settled(150)
        audit = await crowd.audit(receiver)
    audit.verify()


@brokers(RABBITMQ)
async def test_workers_are_replaced_in_turn_without_a_repeat(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """SIGTERM drains: a deployment under load sends nothing twice, and every process ends with status 0."""
    receiver = Receiver(delay=timedelta(milliseconds=30))
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, WORKER_CONCURRENCY="10") as processes,
    ):
        workers = [await processes.start("worker") for _ in range(2)]
        await processes.start("scheduler")
        await crowd.gather(900)
        for round_number in range(1, 3):
            await crowd.wait_for_delivered(200 * round_number, 60)
            newcomer = await processes.start("worker")
            leaver = workers.pop(0)
            processes.programs.remove(leaver)
            assert await leaver.stop(signal.SIGTERM) == 0
            workers.append(newcomer)
        await crowd.wait_until_settled(90)
        audit = await crowd.audit(receiver)
    audit.verify()
    assert await crowd.attempts() == audit.expected


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_worker_that_cannot_drain_in_time_is_cut_off_and_says_so(
    crowd: Crowd, database_url: str, signals: int
) -> None:
    """The service hangs longer than SHUTDOWN_TIMEOUT, or a second signal comes: the status is not 0."""
    receiver = Receiver(hang=1.0)
    async with (
        MessageService(receiver) as service,
        fleet(database_url, None, service.url, MESSAGE_SERVICE_TIMEOUT="20s", SHUTDOWN_TIMEOUT="1s") as processes,
    ):
        program = await processes.start("scheduler,worker")
        await crowd.gather(1)
        await service.wait_for(1, 60)
        program.process.send_signal(signal.SIGTERM)
        if signals == 2:
            await program.wait_for_event("service.stopping")
            program.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await program.process.wait() == (1 if signals == 1 else 130)
