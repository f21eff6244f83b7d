"""The end of a process: while it drains it says so, and it ends in time whatever does not answer."""

import asyncio
import signal
from datetime import timedelta

import pytest

from tests.support.chaos import FULL, POSTGRES, RABBITMQ, Crowd, Receiver, brokers, fleet, let_fault_last, ready, until
from tests.support.message_service import Answer, MessageService
from tests.support.program import Program
from tests.support.proxy import network

SHUTDOWN_SECONDS = 3
CLOSING_SECONDS = 15
"""How much longer all of it may take: cutting off, on a machine that has other things to do."""


@pytest.mark.parametrize(
    ("queue_url", "role"),
    [(POSTGRES, "worker"), (POSTGRES, "scheduler"), (RABBITMQ, "worker"), *([(RABBITMQ, "scheduler")] if FULL else [])],
    indirect=["queue_url"],
)
async def test_a_silent_database_does_not_keep_a_process_alive(
    crowd: Crowd, database_url: str, queue_url: str | None, role: str
) -> None:
    """The network to the database swallows everything: a process that is stopped ends in time, and says what it cut."""
    receiver = Receiver(delay=timedelta(milliseconds=300))
    async with (
        MessageService(receiver) as service,
        network(database_url, queue_url, service.url) as between,
        fleet(database_url, queue_url, service.url, SHUTDOWN_TIMEOUT=f"{SHUTDOWN_SECONDS}s") as processes,
    ):
        program = await processes.start(role, **between.settings)
        await processes.start("scheduler" if role == "worker" else "worker")
        await crowd.gather(300)
        await crowd.wait_for_delivered(1, 60)
        between.database.silence()
        # Everybody who asks the database is waiting by now.
        await let_fault_last(1)
        program.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SHUTDOWN_SECONDS + CLOSING_SECONDS):
            assert await program.process.wait() == 1
        [cut_off] = [event for event in program.events if event["event"] == "service.cut_off"]
        assert cut_off["connections"] > 0
        assert cut_off["after_seconds"] == SHUTDOWN_SECONDS + 2


@brokers(POSTGRES)
async def test_a_worker_that_drains_is_not_ready(crowd: Crowd, database_url: str, queue_url: str | None) -> None:
    """From the signal until what is being sent has its answer, /ready is 503; then the process ends with status 0."""
    slow = Answer(delay=timedelta(seconds=3))
    async with (
        MessageService(lambda _received: slow) as service,
        fleet(database_url, queue_url, service.url, MESSAGE_SERVICE_TIMEOUT="5s") as processes,
    ):
        program = await processes.start("scheduler,worker")
        await crowd.gather(1)
        await service.wait_for(1)
        assert await ready(program) == 200
        await stop_and_see_it_refuse(program)
        assert await crowd.statuses() == {"delivered": 1}


@pytest.mark.parametrize("queue_url", [POSTGRES], indirect=True)
async def test_an_api_that_lingers_is_not_ready(crowd: Crowd, database_url: str, queue_url: None) -> None:
    """In the second in which clients are told to go elsewhere, so is the load balancer."""
    assert queue_url is None
    async with MessageService() as service, fleet(crowd.url, queue_url, service.url) as processes:
        program = await processes.start("api", DATABASE_URL=database_url)
        assert await ready(program) == 200
        await stop_and_see_it_refuse(program)


async def stop_and_see_it_refuse(program: Program) -> None:
    """Send SIGTERM, see /ready answer 503 while the process is still there, and see it end well."""
    program.process.send_signal(signal.SIGTERM)

    async def refuses() -> bool:
        return await ready(program) == 503

    await until(refuses, "/ready answers 503", 60)
    assert program.process.returncode is None
    async with asyncio.timeout(60):
        assert await program.process.wait() == 0
