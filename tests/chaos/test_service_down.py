"""The message service is down for a while: messages wait, and nothing is wasted on it."""

from datetime import timedelta

import pytest

from tests.support.chaos import FULL, POSTGRES, RABBITMQ, Crowd, Fleet, Receiver, brokers, fleet, let_fault_last, until
from tests.support.message_service import MessageService

THRESHOLD = 10
RESET_SECONDS = 2


@brokers(RABBITMQ)
async def test_an_outage_burns_no_attempts_and_ends_with_everybody_greeted(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """The circuit opens; nothing is dead-lettered; after the outage everything is delivered within a minute."""
    count, outage_seconds = (2000, 120) if FULL else (400, 10)
    receiver = Receiver(delay=timedelta(milliseconds=5))
    service = await MessageService(receiver).start()
    async with fleet(
        database_url,
        queue_url,
        service.url,
        WORKER_CONCURRENCY="10",
        CIRCUIT_BREAKER_FAILURE_THRESHOLD=str(THRESHOLD),
        CIRCUIT_BREAKER_RESET_TIMEOUT=f"{RESET_SECONDS}s",
    ) as processes:
        worker = await processes.start("worker")
        await service.stop()
        await processes.start("scheduler")
        await crowd.gather(count)
        await worker.wait_for_event("circuit.opened")
        await let_fault_last(outage_seconds)
        statuses = await crowd.statuses()
        assert statuses["failed"] == 0
        assert statuses["delivered"] == 0
        probes = logged(processes, "circuit.half_open")
        assert logged(processes, "message.retrying") <= THRESHOLD + 10 + probes
        await service.start()
        await crowd.wait_until_settled(60)
        audit = await crowd.audit(receiver)
    await service.stop()
    audit.verify()
    assert audit.delivered == count
    # The few that met the outage before the circuit opened, and no others, were tried more than once.
    assert await crowd.attempts() <= count + THRESHOLD + 10


@pytest.mark.long
async def test_a_service_that_asks_for_patience_is_given_it(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """429 with Retry-After for a third of the requests: nothing fails, and the circuit stays closed."""
    receiver = Receiver(busy=0.33)
    async with (
        MessageService(receiver) as service,
        fleet(
            database_url,
            queue_url,
            service.url,
            MAX_ATTEMPTS="20",
            RETRY_MAX_DELAY="2s",
            CIRCUIT_BREAKER_FAILURE_THRESHOLD="3",
        ) as processes,
    ):
        await processes.start("scheduler,worker")
        await crowd.gather(300)
        await crowd.wait_until_settled(60)
        assert logged(processes, "circuit.opened") == 0
        audit = await crowd.audit(receiver)
    audit.verify()


@brokers(POSTGRES)
async def test_a_short_outage_of_everything_is_waited_out(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """The service goes in the middle of a burst, and comes back: what was in flight is tried again, not lost."""
    receiver = Receiver(delay=timedelta(milliseconds=20))
    service = await MessageService(receiver).start()
    async with fleet(
        database_url, queue_url, service.url, WORKER_CONCURRENCY="20", CIRCUIT_BREAKER_RESET_TIMEOUT="1s"
    ) as processes:
        await processes.start("scheduler,worker")
        await crowd.gather(600)
        await crowd.wait_for_delivered(100, 60)
        await service.stop()
        await until(lambda: _opened(logged(processes, "circuit.opened")), "the circuit opens", 60)
        await service.start()
        await crowd.wait_until_settled(60)
        audit = await crowd.audit(receiver)
    await service.stop()
    audit.verify(repeats=20)


def logged(processes: Fleet, event: str) -> int:
    """Return how often the processes have logged an event."""
    return sum(each["event"] == event for program in processes.programs for each in program.events)


async def _opened(count: int) -> bool:
    return count > 0
