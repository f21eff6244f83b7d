"""The network between us and each server: cut, reset, slow, silent, and silent for ever on what was open."""

from datetime import timedelta

import pytest

from tests.support.chaos import FULL, POSTGRES, RABBITMQ, Crowd, Receiver, fleet, let_fault_last
from tests.support.message_service import MessageService
from tests.support.proxy import Network, Proxy, network

CONCURRENCY = 10
FAULT_SECONDS = 5
FAULTS = ["cut", "reset", "slow", "silent", "lost"]
CASES = (
    [(POSTGRES, part, fault) for part in ("database", "service") for fault in FAULTS]
    + [(RABBITMQ, part, fault) for part in ("database", "queue", "service", "everything") for fault in FAULTS]
    if FULL
    else [(POSTGRES, "everything", "cut"), (RABBITMQ, "everything", "silent")]
)


@pytest.mark.parametrize(("queue_url", "part", "fault"), CASES, indirect=["queue_url"])
async def test_when_the_network_is_back_everybody_is_greeted_and_no_process_was_restarted(
    crowd: Crowd, database_url: str, queue_url: str | None, part: str, fault: str
) -> None:
    """While database or queue cannot be reached, readiness says so; afterwards all goes on by itself.

    What was lost without a word, on either side, is noticed in time for that within a minute.
    """
    receiver = Receiver()
    settings = {
        "WORKER_CONCURRENCY": str(CONCURRENCY),
        "CIRCUIT_BREAKER_RESET_TIMEOUT": "2s",
        "MESSAGE_SERVICE_TIMEOUT": "1s",
    }
    async with (
        MessageService(receiver) as service,
        network(database_url, queue_url, service.url) as between,
        fleet(database_url, queue_url, service.url, **settings | between.settings) as processes,
    ):
        await processes.start("scheduler")
        await processes.start("worker")
        await crowd.gather(50)
        await crowd.wait_until_settled(20)
        for proxy in affected(between, part):
            await disturb(proxy, fault)
        await crowd.gather(100)
        if fault in {"cut", "silent"} and part != "service":
            await processes.wait_for_ready(503, 60)
        await let_fault_last(FAULT_SECONDS)
        for proxy in affected(between, part):
            await proxy.heal()
        await crowd.wait_until_settled(60)
        await processes.wait_for_ready(200, 60)
        audit = await crowd.audit(receiver)
        assert [program.process.returncode for program in processes.programs] == [None, None]
    # A request that gets no answer in time may arrive all the same, and later.
    audit.verify(repeats=0 if part in {"database", "queue"} else 4 * CONCURRENCY)


def affected(between: Network, part: str) -> set[Proxy]:
    """Return what is to be disturbed."""
    parts = {"database": between.database, "queue": between.queue, "service": between.service}
    return set(parts.values()) if part == "everything" else {parts[part]}


async def disturb(proxy: Proxy, fault: str) -> None:
    """Do to a network what lasts until it is healed."""
    match fault:
        case "cut":
            await proxy.cut()
        case "reset":
            proxy.reset()
        case "slow":
            proxy.delay = timedelta(milliseconds=200)
        case "silent":
            proxy.silence()
        case "lost":
            proxy.lose()
