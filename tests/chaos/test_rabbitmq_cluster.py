"""A cluster of three RabbitMQ nodes, one of which falls silent: it is stopped, and its connections stay open.

The cluster gives up on a silent node after a minute. Until then, ``queue.bind`` hangs on every node.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import pytest

from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.errors import UnavailableError
from tests.support.chaos import until
from tests.support.rabbitmq import RabbitMQServer

pytestmark = pytest.mark.long

Nodes = tuple[RabbitMQServer, RabbitMQServer, RabbitMQServer]


@pytest.fixture
async def nodes(rabbitmq_cluster: list[RabbitMQServer]) -> Nodes:
    """Return the node that leads the queues, and two others."""
    leader, one, other = rabbitmq_cluster

    async def are_up() -> bool:
        lists = [await asyncio.to_thread(node.manage, "GET", "nodes") for node in rabbitmq_cluster]
        return all(len(each) == 3 and all(node.get("uptime") for node in each) for each in lists)

    await until(are_up, "all nodes are in the cluster", 60)
    return leader, one, other


@pytest.fixture
async def vhost(nodes: Nodes) -> AsyncIterator[str]:
    """Return a virtual host with our queues. Each has a member on every node and is led by the first one."""
    leader = nodes[0]
    vhost = f"test-{secrets.token_hex(6)}"
    await asyncio.to_thread(leader.create_vhost, vhost)
    broker = RabbitMQBroker(leader.url(vhost))
    await broker.publish([uuid4()])
    await broker.close()

    async def are_led() -> bool:
        queues = await asyncio.to_thread(leader.manage, "GET", f"queues/{vhost}")
        return len(queues) == 7 and all(
            queue.get("leader") == leader.name and len(queue.get("online", ())) == 3 for queue in queues
        )

    await until(are_led, "the queues are led by the first node", 30)
    yield vhost
    await asyncio.to_thread(leader.delete_vhost, vhost)


@contextmanager
def silent(node: RabbitMQServer) -> Iterator[None]:
    """Let a node be silent for the length of the context."""
    node.freeze()
    try:
        yield
    finally:
        node.thaw()


async def test_a_process_starts_while_a_node_is_silent(nodes: Nodes, vhost: str) -> None:
    """What is there is not declared or bound again, so a new process publishes and consumes at once."""
    _, ours, third = nodes
    broker = RabbitMQBroker(ours.url(vhost))
    with silent(third):
        async with asyncio.timeout(5):
            await broker.publish([uuid4()])
            async with broker.consume(prefetch=2) as consumer:
                assert len(await consumer.receive(2, 2)) == 2
            await broker.check()
    await broker.close()


async def test_a_silent_leader_is_waited_for(nodes: Nodes, vhost: str) -> None:
    """Until the queue has another leader, publishing fails and the check says so. The subscription keeps what it has.

    Channels from before then work again at once, while new ones would hang for the rest of the minute.
    """
    leader, ours, _ = nodes
    broker = RabbitMQBroker(ours.url(vhost), timeout=timedelta(seconds=4))
    message_id = uuid4()

    async def is_published() -> bool:
        with suppress(UnavailableError):
            await broker.publish([message_id])
            return True
        return False

    async def is_refused() -> bool:
        try:
            await broker.check()
        except UnavailableError as error:
            return "has not confirmed what was published" in str(error)
        return False

    async with broker.consume(prefetch=10) as consumer:
        [held] = await consumer.receive(1, 0)
        await broker.publish([uuid4()])
        await consumer.ack(await consumer.receive(1, 0))
        with silent(leader):
            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                group.create_task(until(is_published, "the queue has another leader", 25))
                await until(is_refused, "the check fails", 8)
            await broker.check()
            # Each time that publishing failed has left a copy.
            received = await consumer.receive(10, 1)
            assert {each.message_id for each in received} == {message_id}
            await consumer.ack([held, *received])
            assert consumer.unacked == 0
    async with broker.consume(prefetch=10) as consumer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await consumer.receive(1, 0)
    await broker.close()
