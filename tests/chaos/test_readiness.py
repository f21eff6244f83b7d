"""What ``/ready`` says while a process runs and its work does not get done, though every server can be reached."""

import pytest

from tests.support.chaos import POSTGRES, RABBITMQ, Crowd, Receiver, fleet, let_fault_last, ready
from tests.support.message_service import MessageService
from tests.support.product import eventually
from tests.support.program import Program
from tests.support.proxy import network

REFUSALS = {
    "read-only": (
        "ALTER DATABASE {database} SET default_transaction_read_only = on",
        "ALTER DATABASE {database} RESET default_transaction_read_only",
    ),
    "full": (
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON message_logs EXECUTE FUNCTION refuse()
        """,
        "DROP TRIGGER refuse ON message_logs",
    ),
}
"""What makes a database refuse every outcome, and what undoes it."""

END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'birthday'
"""
"""A setting of the database holds for new sessions."""


@pytest.mark.parametrize("queue_url", [RABBITMQ], indirect=True)
async def test_a_worker_with_a_deaf_consumer_is_not_ready(crowd: Crowd, database_url: str, queue_url: str) -> None:
    """RabbitMQ can be reached again, but the subscription is on a connection that is dead without a word.

    Not before the worker has another subscription is it ready, and it gets one without waiting for heartbeats.
    """
    async with (
        MessageService(Receiver()) as service,
        network(database_url, queue_url, service.url) as between,
        fleet(database_url, queue_url, service.url) as processes,
    ):
        worker = await processes.start("worker", **between.settings)
        await processes.start("scheduler")
        await crowd.gather(20)
        await crowd.wait_until_settled(20)
        between.queue.lose()
        await crowd.gather(50)
        answers = [await answer_while_deaf(worker)]
        while answers[-1] is not None:
            answers.append(await answer_while_deaf(worker))
        first_refusal = answers.index(503)
        assert set(answers[first_refusal:-1]) == {503}
        assert first_refusal < 10
        await crowd.gather(10)
        # Some of them: until RabbitMQ notices that the old subscription is dead, it gets its share.
        await crowd.wait_for_delivered(21, 20)

        async def is_ready() -> bool:
            return await ready(worker) == 200

        # A result of the checks holds for a second.
        await eventually(is_ready, "the worker is ready again", 5)


async def answer_while_deaf(worker: Program) -> int | None:
    """Return the status of ``/ready``, or None if the worker has another subscription than its first one by now."""
    status = await ready(worker)
    # For the log, which comes another way, to catch up.
    await let_fault_last(0.2)
    subscriptions = sum(event["event"] == "worker.consuming" for event in worker.events)
    return status if subscriptions == 1 else None


@pytest.mark.parametrize("queue_url", [POSTGRES], indirect=True)
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_who_cannot_store_anything_is_not_ready(
    crowd: Crowd, database_url: str, queue_url: None, refusal: str
) -> None:
    """The database answers, and refuses to be written to: worker and scheduler say so, and go on afterwards."""
    database = database_url.rpartition("/")[2].partition("?")[0]
    begin, end = (statement.format(database=f'"{database}"') for statement in REFUSALS[refusal])
    receiver = Receiver()
    async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
        await processes.start("worker")
        await processes.start("scheduler")
        await crowd.gather(20)
        await crowd.wait_until_settled(20)
        async with crowd.connection() as connection:
            await connection.execute(begin)
            await connection.execute(END_SESSIONS)
            if refusal == "full":
                # Nobody asks whether the disk is full: that shows when there is something to do.
                await crowd.gather(20)
            await processes.wait_for_ready(503, 60)
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(end)
            await connection.execute(END_SESSIONS)
        await processes.wait_for_ready(200, 60)
        await crowd.gather(20)
        await crowd.wait_until_settled(60)
        audit = await crowd.audit(receiver)
        assert [program.process.returncode for program in processes.programs] == [None, None]
    audit.verify()
