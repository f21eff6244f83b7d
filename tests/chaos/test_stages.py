"""Death at an exact moment: the network holds what a process is about to say, and the process is killed."""

import asyncio

import pytest

from tests.support.chaos import FULL, Crowd, Receiver, brokers, fleet, let_fault_last, open_queue, until
from tests.support.message_service import MessageService
from tests.support.proxy import Network, network

CLAIM = b"SET status = 'sending'"
SEND = b"POST /send"
SETTLE = b"AS done (id"
MARK_QUEUED = b"SET status = 'queued', phase"
COMMIT = b"COMMIT"
# With RabbitMQ, the class and method of the frame, after its size (AMQP 0-9-1, section 2.3.5) where that is fixed.
PUBLISH = {True: b"\x00\x3c\x00\x28", False: b"INSERT INTO queue_messages"}
ACK = {True: b"\x00\x00\x00\x0d\x00\x3c\x00\x50", False: b"DELETE FROM queue_messages"}


@brokers("rabbitmq")
async def test_workers_die_at_each_stage_and_only_what_was_sent_and_not_stored_is_repeated(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """One dies before its claim, before its sends, before it stores them, before a retry is queued, before an ack."""
    receiver, failing = Receiver(), Receiver(fail=1.0)
    on_rabbitmq = queue_url is not None
    async with (
        MessageService(receiver) as service,
        MessageService(failing) as failing_service,
        network(database_url, queue_url, service.url) as at_claim,
        network(database_url, queue_url, service.url) as at_send,
        network(database_url, queue_url, service.url) as at_settle,
        network(database_url, queue_url, failing_service.url) as at_retry,
        network(database_url, queue_url, service.url) as at_ack,
        fleet(database_url, queue_url, service.url, WORKER_CONCURRENCY="5") as processes,
    ):
        stages: list[Network] = [at_claim, at_send, at_settle, at_retry, at_ack]
        workers = [await processes.start("worker", **stage.settings) for stage in stages]
        at_claim.database.hold_at(CLAIM)
        at_send.service.hold_at(SEND)
        at_settle.database.hold_at(SETTLE)
        at_retry.queue.hold_at(PUBLISH[on_rabbitmq])
        at_ack.queue.hold_at(ACK[on_rabbitmq])
        scheduler = await processes.start("scheduler")
        await crowd.gather(200)
        async with asyncio.timeout(60):
            for held in (at_claim.database, at_send.service, at_settle.database, at_retry.queue, at_ack.queue):
                await held.holding.wait()
        await until(lambda: stands_still(receiver), "the service gets no more requests", 60)
        not_stored = len(receiver.accepted) - (await crowd.statuses())["delivered"]
        assert not_stored > 0
        await asyncio.gather(*(processes.kill(worker) for worker in workers))
        for stage in stages:
            await stage.cut()
        await processes.start("worker")
        await crowd.wait_until_settled(90)
        audit = await crowd.audit(receiver)
        assert scheduler.process.returncode is None
    audit.verify(repeats=not_stored)
    assert audit.repeats == not_stored


@brokers("postgres", "rabbitmq")
@pytest.mark.parametrize("dies", [True, False] if FULL else [True], ids=lambda dies: "killed" if dies else "frozen")
async def test_a_scheduler_is_lost_between_confirm_and_commit(
    crowd: Crowd, database_url: str, queue_url: str | None, *, dies: bool
) -> None:
    """The queue has the messages and the database does not know: they are sent once all the same.

    A host that is killed is noticed at once; one that freezes, or vanishes, holds its locks until the server's patience
    ends, half a minute later.
    """
    receiver = Receiver()
    async with (
        MessageService(receiver) as service,
        network(database_url, queue_url, service.url) as isolated,
        fleet(database_url, queue_url, service.url) as processes,
        open_queue(database_url, queue_url) as queue,
    ):
        scheduler = await processes.start("scheduler", **isolated.settings)
        isolated.database.hold_at(MARK_QUEUED, COMMIT)
        await crowd.gather(100)
        async with asyncio.timeout(60):
            await isolated.database.holding.wait()
        assert dict(await crowd.statuses()) == {"scheduled": 100}
        assert (await queue.stats()).ready == 100
        if dies:
            await processes.kill(scheduler)
            await isolated.cut()
        await processes.start("scheduler,worker")
        await crowd.wait_until_settled(20 if dies else 60)
        audit = await crowd.audit(receiver)
        await isolated.cut()
    audit.verify()


async def stands_still(receiver: Receiver) -> bool:
    """Say whether the number of accepted messages stays the same for a moment."""
    before = len(receiver.accepted)
    await let_fault_last(0.5)
    return before == len(receiver.accepted)
