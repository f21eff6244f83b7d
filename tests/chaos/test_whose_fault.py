"""A service that fails over some, or refuses everybody: the others are greeted, and nobody pays for a wrong key."""

from datetime import timedelta

import aiohttp
import pytest

from tests.support.chaos import FULL, POSTGRES, RABBITMQ, Crowd, Fleet, Receiver, brokers, fleet, let_fault_last, until
from tests.support.message_service import Answer, MessageService, Received
from tests.support.program import Program

THRESHOLD = 10
RESET_SECONDS = 2
LOAD_SECONDS = 10
"""How much longer everything may take on a machine that has other things to do."""
SETTINGS = {
    "CIRCUIT_BREAKER_FAILURE_THRESHOLD": str(THRESHOLD),
    "CIRCUIT_BREAKER_RESET_TIMEOUT": f"{RESET_SECONDS}s",
    "WORKER_CONCURRENCY": "10",
    "RETRY_BASE_DELAY": "500ms",
}
BOTH = (POSTGRES, RABBITMQ)
FAILURES = (
    [(queue, *case) for queue in BOTH for case in ((500, 30), (500, 150), (404, 30), (502, 12))]
    if FULL
    else [(RABBITMQ, 500, 30), (POSTGRES, 500, 150), (POSTGRES, 404, 30), (RABBITMQ, 502, 12)]
)
REFUSALS = (
    [(queue, status, count) for queue in BOTH for status in (401, 404) for count in (3, 300)]
    if FULL
    else [(POSTGRES, 401, 3), (RABBITMQ, 404, 300)]
)


class Choosy(Receiver):
    """A message service that answers ``status`` for some addresses, or for all while ``refuses_all``."""

    def __init__(self, status: int) -> None:
        """Accept everybody at first."""
        super().__init__(delay=timedelta(milliseconds=5))
        self.status = status
        self.poison: set[str] = set()
        self.refuses_all = False

    def __call__(self, received: Received) -> Answer:
        """Answer ``status``, or accept."""
        if self.refuses_all or (received.body and received.json["email"] in self.poison):
            return Answer(self.status, delay=self.delay)
        return super().__call__(received)


async def gather_poison(crowd: Crowd, receiver: Choosy, count: int) -> None:
    """Add users whom the service will fail over."""
    await crowd.gather(count)
    async with crowd.connection() as connection:
        receiver.poison |= {row["email"] for row in await connection.fetch("SELECT email FROM users")}


@pytest.mark.parametrize(("queue_url", "status", "poison"), FAILURES, indirect=["queue_url"])
async def test_messages_that_the_service_fails_over_end_and_the_others_are_delivered(
    crowd: Crowd, database_url: str, queue_url: str | None, status: int, poison: int
) -> None:
    """Poison at the head of the queue opens the circuit; the others go out all the same, and the poison fails."""
    others = 3000 if FULL else 300
    receiver = Choosy(status)
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, **SETTINGS) as processes,
    ):
        await gather_poison(crowd, receiver, poison)
        worker = await processes.start("worker")
        await processes.start("scheduler")
        await worker.wait_for_event("circuit.opened")
        await crowd.gather(others)
        await crowd.wait_for_delivered(others, 60)
        await crowd.wait_until_settled(90)
        audit = await crowd.audit(receiver)
    audit.verify(failed=poison)
    assert (audit.delivered, audit.failed) == (others, poison)


@pytest.mark.timeout(420)
@brokers(RABBITMQ)
async def test_a_storm_of_poison_holds_the_others_up_for_two_reset_times_at_most(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """More poison than others, mixed with them: everybody else is delivered, and the circuit says what it is."""
    receiver = Choosy(500)
    slow = {"CIRCUIT_BREAKER_RESET_TIMEOUT": "5s", "CIRCUIT_BREAKER_FAILURE_THRESHOLD": "20"}
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, **SETTINGS | slow) as processes,
    ):
        await gather_poison(crowd, receiver, 150)
        await crowd.gather(100)
        worker = await processes.start("worker")
        await processes.start("scheduler")
        opened = await worker.wait_for_event("circuit.opened")
        await crowd.wait_for_delivered(100, 2 * 5 + LOAD_SECONDS)
        assert opened["cause"] == "outage"
        others = 100

        async def poison_ends_while_others_come() -> bool:
            # A message that failed after the last delivery is at fault once another one is delivered.
            nonlocal others
            statuses = await crowd.statuses()
            if statuses["delivered"] == others and statuses["failed"] < 150:
                await crowd.gather(1)
                others += 1
            return set(statuses) <= {"delivered", "failed"}

        await until(poison_ends_while_others_come, "all poison has failed", 240)
        assert "poison" in {event.get("cause") for event in worker.events}
        audit = await crowd.audit(receiver)
    audit.verify(failed=150)


@pytest.mark.parametrize(("queue_url", "status", "count"), REFUSALS, indirect=["queue_url"])
async def test_a_refusal_that_concerns_everybody_fails_nobody(
    crowd: Crowd, database_url: str, queue_url: str | None, count: int, status: int
) -> None:
    """A wrong key or URL: the circuit opens and says so, health is degraded, and everybody is greeted afterwards."""
    receiver = Choosy(status)
    receiver.refuses_all = True
    settings = SETTINGS | {"CIRCUIT_BREAKER_FAILURE_THRESHOLD": "6"}
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, **settings) as processes,
    ):
        await crowd.gather(count)
        worker = await processes.start("worker")
        await processes.start("scheduler")
        opened = await worker.wait_for_event("circuit.opened", 60)
        assert opened["cause"] == f"refused: {status}"
        health = await health_of(worker)
        assert health["status"] == "degraded"
        assert f"refused: {status}" in health["reason"]
        await let_fault_last(600 if FULL else 6)
        assert await crowd.attempts() == 0
        assert (await crowd.statuses())["failed"] == 0
        receiver.refuses_all = False
        await crowd.wait_until_settled(60)
        audit = await crowd.audit(receiver)
        assert (await health_of(worker))["status"] == "healthy"
    audit.verify()
    assert audit.delivered == count


@brokers(POSTGRES)
async def test_a_refusal_between_successes_fails_its_own_message_alone(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """The service forbids one address and takes the others: that message fails for good, the circuit stays closed."""
    receiver = Choosy(403)
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, **SETTINGS) as processes,
    ):
        await processes.start("scheduler,worker")
        await crowd.gather(20)
        await crowd.wait_for_delivered(20, 60)
        async with crowd.connection() as connection:
            known = {row["email"] for row in await connection.fetch("SELECT email FROM users")}
        await gather_poison(crowd, receiver, 1)
        receiver.poison -= known
        await crowd.wait_until_settled(30)
        audit = await crowd.audit(receiver)
        assert not opened(processes)
    audit.verify(failed=1)
    assert audit.failed == 1


def opened(processes: Fleet) -> bool:
    """Say whether a circuit has opened."""
    return any(event["event"] == "circuit.opened" for program in processes.programs for event in program.events)


async def health_of(program: Program) -> dict[str, str]:
    """Return what ``/health`` says."""
    async with aiohttp.ClientSession() as session, session.get(f"{program.url}/health") as response:
        answer: dict[str, str] = await response.json()
        return answer
