"""A consumer that is robbed of its connection or of its queue gets another one, and the process goes on."""

from collections.abc import Callable

import pytest

from tests.support.chaos import POSTGRES, RABBITMQ, Crowd, Receiver, fleet, until
from tests.support.message_service import MessageService
from tests.support.rabbitmq import RabbitMQServer

Rob = Callable[[RabbitMQServer, str], None]


def close_connections(server: RabbitMQServer, vhost: str) -> None:
    """Close every connection, as an operator does."""
    for connection in server.manage("GET", f"vhosts/{vhost}/connections"):
        server.manage("DELETE", f"connections/{connection['name'].replace(' ', '%20').replace('>', '%3E')}")


def delete_queue(server: RabbitMQServer, vhost: str) -> None:
    """Delete the queue that is consumed."""
    server.manage("DELETE", f"queues/{vhost}/birthday_messages")


def delete_everything(server: RabbitMQServer, vhost: str) -> None:
    """Delete every queue and exchange of ours."""
    for queue in server.manage("GET", f"queues/{vhost}"):
        server.manage("DELETE", f"queues/{vhost}/{queue['name']}")
    for exchange in ("birthday_exchange", "birthday_dlx"):
        server.manage("DELETE", f"exchanges/{vhost}/{exchange}")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("rob", [close_connections, delete_queue, delete_everything], ids=lambda rob: rob.__name__)
@pytest.mark.parametrize("queue_url", [RABBITMQ], indirect=True)
async def test_a_consumer_that_rabbitmq_drops_comes_back(
    crowd: Crowd, database_url: str, queue_url: str, rabbitmq_server: RabbitMQServer, rob: Rob
) -> None:
    """Connection closed, queue deleted, all of it deleted: it is declared again, and messages flow.

    That takes seconds, and up to two minutes for what a quorum queue has confirmed and lost while it was deleted.
    """
    receiver = Receiver(fail=0.1)
    vhost = queue_url.rpartition("/")[2]
    async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
        program = await processes.start("scheduler,worker")
        await crowd.gather(50)
        await crowd.wait_until_settled(30)

        async def is_known() -> bool:
            return len(rabbitmq_server.manage("GET", f"vhosts/{vhost}/connections")) > 0

        await until(is_known, "the management plugin knows of the connection", 60)
        rob(rabbitmq_server, vhost)
        await crowd.gather(50)
        await crowd.wait_until_settled(130)
        await processes.wait_for_ready(200, 60)
        audit = await crowd.audit(receiver)
        assert program.process.returncode is None
    audit.verify()


@pytest.mark.parametrize("queue_url", [POSTGRES], indirect=True)
async def test_a_consumer_whose_session_an_administrator_ends_comes_back(
    crowd: Crowd, database_url: str, queue_url: None
) -> None:
    """pg_terminate_backend for every session of ours, three times in a row: nothing is lost and nobody is repeated."""
    receiver = Receiver()
    async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
        program = await processes.start("scheduler,worker")
        for _ in range(3):
            await crowd.gather(100)
            async with crowd.connection() as connection:
                await connection.execute(
                    """
                    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'birthday'
                    """
                )
        await crowd.wait_until_settled(60)
        await processes.wait_for_ready(200, 60)
        audit = await crowd.audit(receiver)
        assert program.process.returncode is None
    audit.verify()
