"""Several nodes in RABBITMQ_URL, silent and slow ones. Each proxy before the one server is a node."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import structlog
from yarl import URL

from birthday.broker.rabbitmq import RabbitMQBroker, is_refusal
from birthday.broker.rabbitmq.channel import DivertingTransport
from birthday.errors import UnavailableError
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQServer

SECONDS = 10.0
"""How long something may take that should take no time."""


@pytest.fixture
async def nodes(rabbitmq_url: str) -> AsyncIterator[list[Proxy]]:
    """Return two nodes; ``cluster`` puts the one that it uses first."""
    async with AsyncExitStack() as stack:
        server = urlsplit(rabbitmq_url)
        yield [await stack.enter_async_context(Proxy("127.0.0.1", server.port or 0)) for _ in range(2)]


def url_of(rabbitmq_url: str, nodes: list[Proxy]) -> str:
    """Return a URL that names all nodes."""
    at = urlsplit(rabbitmq_url)
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return at._replace(netloc=f"{at.username}:{at.password}@{hosts}").geturl()


@pytest.fixture
async def cluster(rabbitmq_url: str, nodes: list[Proxy]) -> AsyncIterator[RabbitMQBroker]:
    """Return a broker that is connected to the first of the nodes, and gives each of them a second to connect."""
    broker = RabbitMQBroker(url_of(rabbitmq_url, nodes), timeout=timedelta(seconds=2), heartbeat=timedelta(seconds=1))
    with structlog.testing.capture_logs() as events:
        await broker.check()
    if f":{nodes[1].port}/" in events[-1]["where"]:
        nodes.reverse()
    yield broker
    await broker.close()


@pytest.fixture
async def slow(rabbitmq_url: str, nodes: list[Proxy]) -> AsyncIterator[RabbitMQBroker]:
    """Return a broker that waits for half a second for its only node."""
    broker = RabbitMQBroker(url_of(rabbitmq_url, nodes[:1]), timeout=timedelta(seconds=0.5))
    yield broker
    await broker.close()


@pytest.mark.parametrize("away", [0, 1])
async def test_a_node_that_is_away_at_the_start_is_passed_over(
    rabbitmq_url: str, nodes: list[Proxy], away: int
) -> None:
    """Whichever node is tried first, the one that is there is found."""
    await nodes[away].cut()
    broker = RabbitMQBroker(url_of(rabbitmq_url, nodes))
    await broker.publish([uuid4()])
    assert (await broker.stats()).ready == 1
    await broker.close()


async def test_a_lost_node_is_left_for_another_one(cluster: RabbitMQBroker, nodes: list[Proxy]) -> None:
    """When a node dies, the consumer is told promptly, and the next one is at another node."""
    async with cluster.consume(prefetch=1) as consumer:
        await nodes[0].cut()
        async with asyncio.timeout(SECONDS):
            with pytest.raises(UnavailableError):
                await consumer.receive(1, 0)
    async with cluster.consume(prefetch=1) as consumer, asyncio.timeout(SECONDS):
        await cluster.publish([uuid4()])
        assert len(await consumer.receive(1, 0)) == 1


async def test_a_silent_node_costs_a_part_of_the_time(cluster: RabbitMQBroker, nodes: list[Proxy]) -> None:
    """A node that takes connections and says nothing leaves time for the next one; that it is away is logged."""
    nodes[1].silence()
    nodes[0].reset()
    with structlog.testing.capture_logs() as events:
        async with asyncio.timeout(SECONDS):
            while True:
                with suppress(UnavailableError):
                    await cluster.publish([uuid4()])
                    break
    [away] = [event for event in events if event["event"] == "broker.node_away"]
    assert f":{nodes[1].port}/" in str(away["error"])
    assert "did not answer within 1 s" in str(away["error"])
    [connected] = [event for event in events if event["event"] == "broker.connected"]
    assert f":{nodes[0].port}/" in connected["where"]


async def test_a_silent_node_is_left(cluster: RabbitMQBroker, nodes: list[Proxy]) -> None:
    """The heartbeats that do not come end an idle subscription, within four of them and a check; the next one works."""
    async with cluster.consume(prefetch=1) as consumer:
        nodes[0].silence()
        async with asyncio.timeout(6):
            with pytest.raises(UnavailableError):
                await consumer.receive(1, 0)
    async with asyncio.timeout(SECONDS), cluster.consume(prefetch=1) as consumer:
        await cluster.publish([uuid4()])
        assert len(await consumer.receive(1, 0)) == 1


async def test_an_unanswered_publish_ends_a_silent_connection(cluster: RabbitMQBroker, nodes: list[Proxy]) -> None:
    """Confirms that do not come are waited for no longer than the timeout; then the consumer is told, too."""
    async with cluster.consume(prefetch=1) as consumer:
        nodes[0].silence()
        with pytest.raises(UnavailableError, match="did not answer within 2 s"):
            await cluster.publish([uuid4()])
        with pytest.raises(UnavailableError, match="given up"):
            await consumer.receive(1, 0)
    await cluster.publish([uuid4()])


async def test_a_node_that_confirms_nothing_for_long_is_left(rabbitmq_url: str, nodes: list[Proxy]) -> None:
    """It is left for another one after nine time limits, although it is not silent for a heartbeat interval."""
    first = RabbitMQBroker(rabbitmq_url)
    await first.publish([uuid4()])
    await first.close()
    seconds = timedelta(seconds=0.2)
    broker = RabbitMQBroker(url_of(rabbitmq_url, nodes), timeout=seconds, heartbeat=timedelta(seconds=60))

    async def publish_at_last() -> list[str]:
        """Return the nodes that were connected to."""
        with structlog.testing.capture_logs() as events:
            async with asyncio.timeout(SECONDS):
                while True:
                    with suppress(UnavailableError):
                        await broker.publish([uuid4()])
                        return [event["where"] for event in events if event["event"] == "broker.connected"]

    [*_, where] = await publish_at_last()
    used = next(node for node in nodes if f":{node.port}/" in where)
    used.delay = timedelta(seconds=SECONDS)
    [*_, where] = await publish_at_last()
    assert f":{used.port}/" not in where
    await broker.close()


async def test_all_nodes_that_are_away_are_named(rabbitmq_url: str, nodes: list[Proxy]) -> None:
    """The error says of each node why it cannot be used, without the password. It is no refusal, so a start waits."""
    for node in nodes:
        await node.cut()
    with pytest.raises(UnavailableError) as failed:
        await RabbitMQBroker(url_of(rabbitmq_url, nodes)).check()
    assert not is_refusal(failed.value)
    for node in nodes:
        assert f"RabbitMQ at amqp://guest:***@127.0.0.1:{node.port}/" in str(failed.value)


async def test_a_slow_probe_ends_no_connection(slow: RabbitMQBroker, nodes: list[Proxy], rabbitmq_url: str) -> None:
    """A check that is not answered in time fails, and so does closing its channel; the consumer goes on."""
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(SECONDS):
            consumer = None
            while consumer is None:  # On a busy machine even the beginning may take more than 0.5 s.
                with suppress(UnavailableError):
                    consumer = await stack.enter_async_context(slow.consume(prefetch=1))
        nodes[0].delay = timedelta(seconds=0.6)
        with pytest.raises(UnavailableError, match=r"did not answer within 0\.5 s"):
            await slow.check()
        await nodes[0].heal()
        other = RabbitMQBroker(rabbitmq_url)
        message_id = uuid4()
        await other.publish([message_id])
        await other.close()
        async with asyncio.timeout(SECONDS):
            [delivery] = await consumer.receive(1, 0)
        assert delivery.message_id == message_id
        await consumer.ack([delivery])


async def publish_before(rabbitmq_url: str) -> None:
    """Publish one message, as an earlier process that has declared everything."""
    broker = RabbitMQBroker(rabbitmq_url)
    await broker.publish([uuid4()])
    await broker.close()


async def restrict(rabbitmq_server: RabbitMQServer, rabbitmq_url: str, **rights: str) -> None:
    """Leave the user of the URL only these rights in its virtual host."""
    path = f"permissions{urlsplit(rabbitmq_url).path}/guest"
    await asyncio.to_thread(rabbitmq_server.manage, "PUT", path, rights)


async def test_a_probe_declares_nothing_that_is_there(rabbitmq_url: str, rabbitmq_server: RabbitMQServer) -> None:
    """The first check of a process is answered although its user may declare nothing."""
    await publish_before(rabbitmq_url)
    await restrict(rabbitmq_server, rabbitmq_url, configure="^$", write=".*", read=".*")

    broker = RabbitMQBroker(rabbitmq_url)
    await broker.check()
    assert (await broker.stats()).ready == 1
    async with broker.dead_letters() as letters:
        assert await letters.take() == []
    await broker.close()


async def test_a_new_process_binds_nothing_that_is_there(rabbitmq_url: str, rabbitmq_server: RabbitMQServer) -> None:
    """It publishes and consumes although its user may bind nothing: a binding hangs while a node is silent."""
    await publish_before(rabbitmq_url)
    # To bind, a user needs to write to the queue and to read from the exchange.
    rights = {"configure": ".*", "write": "^birthday_(exchange|dlx)$", "read": "^birthday_messages"}
    await restrict(rabbitmq_server, rabbitmq_url, **rights)

    broker = RabbitMQBroker(rabbitmq_url)
    await broker.publish([uuid4()])
    async with broker.consume(prefetch=2) as consumer, asyncio.timeout(SECONDS):
        assert len(await consumer.receive(2, SECONDS)) == 2
    await broker.close()


@pytest.mark.parametrize("away", [None, 0, 1])
async def test_a_refused_login_is_a_refusal(rabbitmq_url: str, nodes: list[Proxy], away: int | None) -> None:
    """If every node that answers refuses us, a start must not wait for the others; the error names all nodes."""
    if away is not None:
        await nodes[away].cut()
    broker = RabbitMQBroker(url_of(rabbitmq_url, nodes).replace("guest:guest", "guest:wrong"))
    with pytest.raises(UnavailableError, match="ACCESS_REFUSED") as failed:
        await broker.check()
    assert is_refusal(failed.value)
    for node in nodes:
        assert f"RabbitMQ at amqp://guest:***@127.0.0.1:{node.port}/" in str(failed.value)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux only")
async def test_packets_that_nobody_confirms_end_a_connection(rabbitmq_url: str) -> None:
    """The kernel ends a connection whose other host has vanished, after ten seconds instead of a quarter of an hour."""
    _, writer = await DivertingTransport().create(URL(rabbitmq_url), ssl_context_provider=None)
    sock = writer.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
    writer.close()
    await writer.wait_closed()
