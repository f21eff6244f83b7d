"""What the worker's own host is to blame for: no free files, a frozen process, a name service that is away."""

import resource
import signal
from datetime import timedelta

import pytest

from tests.support.chaos import Crowd, Receiver, fleet, let_fault_last
from tests.support.message_service import Answer, MessageService, Received
from tests.support.program import run


async def test_without_free_files_nothing_is_lost_and_everybody_is_greeted_afterwards(
    crowd: Crowd, database_url: str
) -> None:
    """A worker that may open no more files counts no attempt, keeps its circuit closed, says so, and goes on."""
    receiver = Receiver()
    async with (
        MessageService(receiver) as service,
        fleet(database_url, None, service.url, CIRCUIT_BREAKER_FAILURE_THRESHOLD="3") as processes,
    ):
        worker = await processes.start("worker")
        await let_fault_last(1)
        pid = worker.process.pid
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        # What is open stays open, and nothing else can be opened.
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, hard))
        await processes.start("scheduler")
        await crowd.gather(50)
        lacking = await worker.wait_for_event("worker.resource_lacking")
        await let_fault_last(3)
        assert lacking["resource"] == "files"
        assert await crowd.attempts() == 0
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        await crowd.wait_until_settled(30)
        assert not [event for event in worker.events if event["event"] == "circuit.opened"]
        assert len([event for event in worker.events if event["event"] == "worker.resource_lacking"]) <= 2
        audit = await crowd.audit(receiver)
    audit.verify()
    assert await crowd.attempts() == 50


async def test_a_thawed_worker_does_not_blame_the_service(crowd: Crowd, database_url: str) -> None:
    """SIGSTOP for longer than the time limit of an attempt: what was late meanwhile is no timeout of the service."""
    receiver = Receiver(delay=timedelta(milliseconds=700))
    async with (
        MessageService(receiver) as service,
        fleet(
            database_url, None, service.url, CIRCUIT_BREAKER_FAILURE_THRESHOLD="3", WORKER_CONCURRENCY="20"
        ) as processes,
    ):
        worker = await processes.start("worker")
        await processes.start("scheduler")
        await crowd.gather(60)
        await service.wait_for(20, 60)
        worker.process.send_signal(signal.SIGSTOP)
        await let_fault_last(3)
        worker.process.send_signal(signal.SIGCONT)
        await worker.wait_for_event("worker.stood_still")
        await crowd.wait_until_settled(60)
        assert not [event for event in worker.events if event["event"] == "circuit.opened"]
        audit = await crowd.audit(receiver)
    audit.verify(repeats=20)


@pytest.mark.parametrize(
    ("with_key", "without", "said"),
    [
        (200, 401, "the key is accepted: HEAD is answered 200, and 401 without it"),
        (405, 405, "the key could not be tried: HEAD is answered 405 with it and 405 without it"),
        (401, 401, "FAILED"),
        (403, 401, "FAILED"),
    ],
)
async def test_check_tries_the_key_as_far_as_the_service_allows(
    database_url: str, with_key: int, without: int, said: str
) -> None:
    """It asks with and without the key, sends nothing, and says what it could not try."""

    def answer(received: Received) -> Answer:
        return Answer(with_key if "Authorization" in received.headers else without, body=b"")

    async with MessageService(answer) as service:
        finished = await run(
            "check", DATABASE_URL=database_url, MESSAGE_SERVICE_URL=service.url, MESSAGE_SERVICE_API_KEY="zqx"
        )
        assert {received.method for received in service.requests} == {"HEAD"}
    [line] = [line for line in finished.out.splitlines() if line.startswith("channel ")]
    assert said in line
    assert any(line.startswith("files ") for line in finished.out.splitlines())
    assert finished.status == (1 if said == "FAILED" else 0)


@pytest.fixture
def crowd(database_url: str) -> Crowd:
    """Return the users of the test's own database: nobody yet."""
    return Crowd(database_url)
