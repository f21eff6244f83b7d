"""What only the broker on RabbitMQ does: its topology, dead letters as operators see them, and a server that fails."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiormq
import pytest
import structlog
from yarl import URL

from birthday.broker import Delivery, QueueStats
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.broker.rabbitmq.consumer import RabbitMQConsumer
from birthday.broker.rabbitmq.topology import (
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    EXCHANGE,
    QUEUE,
    RETRY_QUEUES,
)
from birthday.errors import UnavailableError
from tests.support.certificates import Certificates
from tests.support.proxy import Proxy
from tests.support.rabbitmq import RabbitMQServer

SECONDS = 10.0
"""How long something may take that should take no time."""
RETRY_5S = "birthday_messages_retry_5s"
RETRY_ARGUMENTS = {"x-queue-type": "quorum", "x-dead-letter-exchange": EXCHANGE, "x-dead-letter-routing-key": QUEUE}


class Management:
    """The management API of one virtual host, as an operator uses it."""

    def __init__(self, server: RabbitMQServer, url: str) -> None:
        """Take the URL of the virtual host."""
        self.server = server
        self.vhost = urlsplit(url).path.strip("/")

    async def call(self, method: str, what: str, name: str = "", body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Call the API for one of the ``what`` (queues, exchanges, …) of the virtual host."""
        path = f"{what}/{self.vhost}/{name}".rstrip("/")
        return await asyncio.to_thread(self.server.manage, method, path, body)

    async def look(self, queue: str, number: int = 1) -> list[dict[str, Any]]:
        """Look at the first messages of a queue, which puts them back."""
        wish = {"count": number, "ackmode": "ack_requeue_true", "encoding": "auto"}
        messages: list[dict[str, Any]] = await self.call("POST", "queues", f"{queue}/get", wish)
        return messages

    async def disconnect_all(self) -> None:
        """Close every connection of the virtual host by force."""
        for connection in await self.open("connections"):
            name = connection["name"].replace(" ", "%20").replace(">", "%3E")
            await asyncio.to_thread(self.server.manage, "DELETE", f"connections/{name}")

    async def open(self, what: str) -> list[dict[str, Any]]:
        """Return the connections or channels that are open, once the server has taken notice of any."""
        path = f"vhosts/{self.vhost}/{what}"
        async with asyncio.timeout(SECONDS):
            while not (found := await asyncio.to_thread(self.server.manage, "GET", path)):
                await asyncio.sleep(0.05)
        result: list[dict[str, Any]] = found
        return result


@pytest.fixture
def management(rabbitmq_server: RabbitMQServer, rabbitmq_url: str) -> Management:
    """Return the management API of the test's virtual host."""
    return Management(rabbitmq_server, rabbitmq_url)


@pytest.fixture
async def broker(rabbitmq_url: str) -> AsyncIterator[RabbitMQBroker]:
    """Return a broker that is closed after the test."""
    broker = RabbitMQBroker(rabbitmq_url)
    yield broker
    await broker.close()


@pytest.fixture
async def impatient(rabbitmq_url: str) -> AsyncIterator[RabbitMQBroker]:
    """Return a broker that waits for the server for half a second."""
    broker = RabbitMQBroker(rabbitmq_url, timeout=timedelta(seconds=0.5))
    yield broker
    await broker.close()


async def receive(consumer: RabbitMQConsumer, number: int) -> list[Delivery]:
    """Receive exactly so many deliveries."""
    received: list[Delivery] = []
    async with asyncio.timeout(SECONDS):
        while len(received) < number:
            received += await consumer.receive(number - len(received), 0)
    return received


async def wait_in_receive(consumer: RabbitMQConsumer) -> asyncio.Task[list[Delivery]]:
    """Return a task that waits for a delivery that does not come."""
    task = asyncio.create_task(consumer.receive(1, 0))
    await asyncio.sleep(0)
    return task


class TestTopology:
    """Exchanges, queues and their arguments."""

    async def test_names_and_arguments(self, broker: RabbitMQBroker, management: Management) -> None:
        """What other people's tools depend on is there: names, types, bindings, and nothing that may drop a message."""
        await broker.check()

        exchanges = {one["name"]: one for one in await management.call("GET", "exchanges")}
        assert all(exchanges[name]["type"] == "direct" for name in (EXCHANGE, DEAD_LETTER_EXCHANGE))
        assert all(exchanges[name]["durable"] for name in (EXCHANGE, DEAD_LETTER_EXCHANGE))
        bindings = {
            (one["source"], one["routing_key"], one["destination"]) for one in await management.call("GET", "bindings")
        }
        assert (EXCHANGE, QUEUE, QUEUE) in bindings
        assert (DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, DEAD_LETTER_QUEUE) in bindings

        queues = {one["name"]: one["arguments"] for one in await management.call("GET", "queues")}
        assert set(queues) == {QUEUE, DEAD_LETTER_QUEUE, *RETRY_QUEUES.values()}
        assert {arguments["x-queue-type"] for arguments in queues.values()} == {"quorum"}
        assert queues[QUEUE]["x-dead-letter-exchange"] == "birthday_dlx"
        assert queues[QUEUE]["x-dead-letter-routing-key"] == "birthday_messages_dlq"
        # The limit that RabbitMQ 4 sets for whoever sets none is 20.
        assert queues[QUEUE]["x-delivery-limit"] > 1000
        assert queues[DEAD_LETTER_QUEUE]["x-delivery-limit"] > 1_000_000
        assert queues["birthday_messages_retry_30s"]["x-message-ttl"] == 30_000
        assert queues["birthday_messages_retry_30s"]["x-dead-letter-exchange"] == "birthday_exchange"
        assert queues["birthday_messages_retry_30s"]["x-dead-letter-routing-key"] == "birthday_messages"

    async def test_declared_twice(self, broker: RabbitMQBroker, rabbitmq_url: str) -> None:
        """Another process finds everything as it would have declared it."""
        await broker.check()
        other = RabbitMQBroker(rabbitmq_url)
        await other.check()
        await other.close()

    async def test_declared_once_for_a_process(self, broker: RabbitMQBroker, management: Management) -> None:
        """After the first use nothing is declared any more: the user may lose the right to, and all goes on."""
        await broker.check()
        rights = {"configure": "^$", "write": ".*", "read": ".*"}
        await asyncio.to_thread(management.server.manage, "PUT", f"permissions/{management.vhost}/guest", rights)
        await broker.check()
        async with broker.consume(prefetch=1) as consumer:
            await broker.publish([uuid4()])
            await receive(consumer, 1)

    @pytest.mark.parametrize("queue", [QUEUE, RETRY_5S, DEAD_LETTER_QUEUE])
    async def test_what_was_deleted_is_declared_again(
        self, broker: RabbitMQBroker, management: Management, queue: str
    ) -> None:
        """A check notices that a queue is gone, and declares it again."""
        await broker.check()
        await management.call("DELETE", "queues", queue)
        await broker.check()
        assert queue in {each["name"] for each in await management.call("GET", "queues")}

    async def test_a_publish_that_comes_back_has_the_next_one_declare(
        self, broker: RabbitMQBroker, management: Management
    ) -> None:
        """A publish that belongs to no queue fails; the next one finds the queue declared again."""
        await broker.publish([uuid4()])
        await management.call("DELETE", "queues", QUEUE)
        with pytest.raises(UnavailableError, match="sent back"):
            await broker.publish([uuid4()])
        await broker.publish([uuid4()])
        assert (await broker.stats()).ready == 1

    @pytest.mark.parametrize(
        ("what", "name", "wrong", "differs"),
        [
            ("exchanges", EXCHANGE, {"type": "topic"}, "type"),
            ("queues", QUEUE, {"arguments": {"x-queue-type": "quorum"}}, "x-dead-letter-exchange"),
            ("queues", RETRY_5S, {"arguments": RETRY_ARGUMENTS | {"x-message-ttl": 7}}, "x-message-ttl"),
        ],
    )
    async def test_a_conflict_is_explained(
        self, broker: RabbitMQBroker, management: Management, what: str, name: str, wrong: dict[str, Any], differs: str
    ) -> None:
        """What exists with other properties is named, with the difference and the remedy, and the remedy works."""
        await management.call("PUT", what, name, {"durable": True, **wrong})
        with pytest.raises(UnavailableError) as conflict:
            await broker.publish([uuid4()])
        assert f"{what.removesuffix('s')} {name} in RabbitMQ at amqp://guest:***@127.0.0.1" in str(conflict.value)
        assert f"'{differs}'" in str(conflict.value)
        assert "delete it" in str(conflict.value)

        await management.call("DELETE", what, name)
        await broker.publish([uuid4()])

    @pytest.mark.parametrize(
        ("seconds", "rung"),
        [
            (0.001, "1s"),
            (1, "1s"),
            (4.9, "1s"),
            (5, "5s"),
            (29, "5s"),
            (30, "30s"),
            (120, "2m"),
            (599, "2m"),
            (600, "10m"),
            (86_400, "10m"),
        ],
    )
    async def test_a_delay_is_spent_in_the_longest_queue_that_fits(
        self, broker: RabbitMQBroker, rabbitmq_url: str, seconds: float, rung: str
    ) -> None:
        """The longest retry queue that is not longer takes the message, and the shortest what is shorter still."""
        await broker.publish([uuid4()], timedelta(seconds=seconds))
        async with aiormq.connect(rabbitmq_url) as connection:
            channel = await connection.channel()
            declared = await channel.queue_declare(f"birthday_messages_retry_{rung}", passive=True)
            assert declared.message_count == 1


class TestPublishing:
    """Persistence, confirms, returns."""

    async def test_messages_are_persistent(self, broker: RabbitMQBroker, management: Management) -> None:
        """A published message has the payload of the contract and survives a restart of the server."""
        message_id = uuid4()
        await broker.publish([message_id])
        [message] = await management.look(QUEUE)
        assert message["payload"] == f'{{"messageId":"{message_id}"}}'
        assert message["properties"]["delivery_mode"] == 2
        assert message["exchange"] == "birthday_exchange"
        assert message["routing_key"] == "birthday_messages"

    async def test_no_properties_at_all(self, broker: RabbitMQBroker, rabbitmq_url: str) -> None:
        """A payload published with no properties, as a bare client does it, is delivered."""
        message_id = uuid4()
        async with broker.consume(prefetch=1) as consumer:
            async with aiormq.connect(rabbitmq_url) as connection:
                channel = await connection.channel()
                body = f'{{"messageId": "{message_id}"}}'.encode()
                await channel.basic_publish(body, exchange=EXCHANGE, routing_key=QUEUE)
            [delivery] = await receive(consumer, 1)
            assert delivery.message_id == message_id

    async def test_one_channel_for_all(self, broker: RabbitMQBroker, management: Management) -> None:
        """All who publish through a broker, even for the first time at the same time, share one channel."""
        await asyncio.gather(*(broker.publish([uuid4()]) for _ in range(20)))
        assert len(await management.open("channels")) == 1
        assert len(await management.open("connections")) == 1

    @pytest.mark.parametrize("delay", [timedelta(), timedelta(seconds=30)], ids=["prompt", "delayed"])
    async def test_what_belongs_to_no_queue_is_an_error(
        self, broker: RabbitMQBroker, management: Management, delay: timedelta
    ) -> None:
        """A message that the server returns is reported, not dropped; the next publish brings the queue back."""
        await broker.publish([uuid4()], delay)
        await management.call("DELETE", "queues", RETRY_QUEUES.get(delay, QUEUE))

        with pytest.raises(UnavailableError, match="NO_ROUTE"):
            await broker.publish([uuid4(), uuid4()], delay)
        await broker.publish([uuid4()], delay)
        stats = await broker.stats()
        assert stats.ready + stats.delayed == 1

    async def test_what_the_server_refuses_is_an_error(self, broker: RabbitMQBroker, management: Management) -> None:
        """A message that the server does not take, here for a length limit, is reported, not dropped."""
        await broker.check()
        limit = {"pattern": QUEUE, "definition": {"max-length": 1, "overflow": "reject-publish"}, "apply-to": "queues"}
        await management.call("PUT", "policies", "limit", limit)

        async def publish_until_refused() -> None:
            while True:
                await broker.publish([uuid4() for _ in range(50)])

        async with asyncio.timeout(SECONDS):
            with pytest.raises(UnavailableError, match="Nack"):
                await publish_until_refused()


class TestTls:
    """AMQP over TLS."""

    async def test_publish_and_consume(self, rabbitmq_url: str, certificates: Certificates) -> None:
        """With amqps the server is trusted by the authority that the URL names, and all is as without."""
        server = urlsplit(rabbitmq_url)

        async def forward(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
            reader, writer = await asyncio.open_connection(server.hostname, server.port)
            with suppress(ConnectionError):
                await asyncio.gather(copy(client, writer), copy(reader, to_client))
            writer.close()

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

        async with await asyncio.start_server(forward, "127.0.0.1", 0, ssl=certificates.server) as terminator:
            port = terminator.sockets[0].getsockname()[1]
            url = rabbitmq_url.replace("amqp://", "amqps://").replace(f"127.0.0.1:{server.port}", f"localhost:{port}")
            ids = {uuid4() for _ in range(1200)}
            broker = RabbitMQBroker(f"{url}?cacertfile={certificates.authority}")
            await broker.publish(list(ids))
            async with broker.consume(len(ids)) as consumer, asyncio.timeout(SECONDS):
                received: list[Delivery] = []
                while len(received) < len(ids):
                    received += await consumer.receive(len(ids), 0.1)
                await consumer.ack(received)
            await broker.close()

            assert {delivery.message_id for delivery in received} == ids
            with pytest.raises(UnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await RabbitMQBroker(f"{url}?verify=verify_peer").check()
            for trusting in (f"cafile={certificates.authority}&heartbeat=30", "verify=verify_none"):
                other = RabbitMQBroker(f"{url}?{trusting}")
                await other.check()
                await other.close()


class TestDeadLetters:
    """The dead-letter queue, as the runbook's procedures see it."""

    async def test_the_reason_is_there(self, broker: RabbitMQBroker, management: Management) -> None:
        """A rejected message arrives with x-death telling queue, exchange, reason, count and time."""
        message_id = uuid4()
        await broker.publish([message_id])
        await self._reject_one(broker)

        [dead] = await management.look(DEAD_LETTER_QUEUE)
        assert dead["payload"] == f'{{"messageId":"{message_id}"}}'
        [death] = dead["properties"]["headers"]["x-death"]
        assert death["reason"] == "rejected"
        assert death["queue"] == "birthday_messages"
        assert death["exchange"] == "birthday_exchange"
        assert death["count"] == 1
        assert abs(death["time"] - time.time()) < 60

    async def test_looking_drops_nothing(self, broker: RabbitMQBroker, management: Management) -> None:
        """However often an operator looks at a dead letter and puts it back, it stays."""
        await broker.publish([uuid4()])
        await self._reject_one(broker)
        for _ in range(30):
            assert len(await management.look(DEAD_LETTER_QUEUE)) == 1

    async def _reject_one(self, broker: RabbitMQBroker) -> None:
        async with broker.consume(prefetch=1) as consumer:
            await consumer.reject(await receive(consumer, 1))
        async with asyncio.timeout(SECONDS):
            while (await broker.stats()).dead != 1:
                await asyncio.sleep(0.02)


class TestFailures:
    """A server that goes away, comes back, or does something to us."""

    async def test_a_deleted_queue_ends_the_consumer(self, broker: RabbitMQBroker, management: Management) -> None:
        """A consumer whose queue is deleted is told promptly; the next one finds the queue declared again."""
        message_id = uuid4()
        async with broker.consume(prefetch=1) as consumer:
            waiting = await wait_in_receive(consumer)
            await management.call("DELETE", "queues", QUEUE)
            async with asyncio.timeout(SECONDS):
                with pytest.raises(UnavailableError, match="birthday_messages was deleted"):
                    await waiting
        async with broker.consume(prefetch=1) as consumer:
            await broker.publish([message_id])
            [delivery] = await receive(consumer, 1)
            assert delivery.message_id == message_id

    async def test_a_channel_closed_by_the_server_ends_the_consumer(self, broker: RabbitMQBroker) -> None:
        """When the server closes the consumer's channel, it is told promptly, and publishing goes on."""
        await broker.publish([uuid4()])
        async with broker.consume(prefetch=1) as consumer:
            await receive(consumer, 1)
            waiting = await wait_in_receive(consumer)
            # The server knows no such tag, which is a reason for it to close the channel.
            await consumer.ack([Delivery(99, uuid4(), redelivered=False, body=b"")])
            async with asyncio.timeout(SECONDS):
                with pytest.raises(UnavailableError, match="unknown delivery tag 99"):
                    await waiting
        await broker.publish([uuid4()])

    async def test_an_interrupted_ack_ends_the_consumer(self, broker: RabbitMQBroker) -> None:
        """When an ack or reject is cancelled half-way, nobody knows what the server was told: the consumer ends."""
        await broker.publish([uuid4(), uuid4()])
        async with broker.consume(prefetch=2) as consumer:
            held = await receive(consumer, 2)
            acking = asyncio.create_task(consumer.reject(held[:1]))
            await asyncio.sleep(0)
            acking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await acking
            with pytest.raises(UnavailableError, match="interrupted"):
                await consumer.ack(held[1:])
        async with broker.consume(prefetch=2) as consumer:
            assert (await receive(consumer, 1))[0].redelivered

    async def test_a_connection_closed_by_the_server_ends_the_consumer(
        self, broker: RabbitMQBroker, management: Management
    ) -> None:
        """When an operator closes the connection, the consumer is told promptly; what comes next makes a new one."""
        async with broker.consume(prefetch=1) as consumer:
            waiting = await wait_in_receive(consumer)
            await management.disconnect_all()
            async with asyncio.timeout(SECONDS):
                with pytest.raises(UnavailableError, match="Closed via management"):
                    await waiting
        await broker.publish([uuid4()])
        assert (await broker.stats()).ready == 1

    async def test_a_killed_server(self, broker: RabbitMQBroker, rabbitmq_server: RabbitMQServer) -> None:
        """When the server dies, everybody is told promptly; when it is back, so are the messages, and all goes on."""
        before, after = uuid4(), uuid4()
        async with broker.consume(prefetch=5) as consumer:
            # A second's delay, because a node takes that long to write down which queues it has.
            await broker.publish([before], timedelta(seconds=1))
            [held] = await receive(consumer, 1)
            waiting = await wait_in_receive(consumer)
            publishing = asyncio.create_task(_publish_for_ever(broker))
            await asyncio.to_thread(rabbitmq_server.kill)
            try:
                async with asyncio.timeout(SECONDS):
                    with pytest.raises(UnavailableError):
                        await waiting
                    with pytest.raises(UnavailableError):
                        await publishing
                    with pytest.raises(UnavailableError):
                        await consumer.ack([held])
                    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
                        await broker.publish([uuid4()])
            finally:
                await asyncio.to_thread(rabbitmq_server.start)

        await broker.publish([after])
        async with broker.consume(prefetch=1000) as consumer:
            seen: set[UUID | None] = set()
            async with asyncio.timeout(SECONDS):
                while not {before, after} <= seen:
                    batch = await consumer.receive(1000, 0)
                    seen |= {delivery.message_id for delivery in batch}
                    await consumer.ack(batch)

    async def test_a_stream_that_ends(self, rabbitmq_url: str) -> None:
        """An idle consumer is told at once of a connection that is closed without a word, and nothing is left over."""
        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        server = URL(rabbitmq_url)
        async with Proxy(server.host or "", server.port or 0) as proxy:
            broker = RabbitMQBroker(str(server.with_port(proxy.port)))
            async with broker.consume(prefetch=5) as consumer:
                waiting = await wait_in_receive(consumer)
                proxy.end()
                async with asyncio.timeout(SECONDS / 2):
                    with pytest.raises(UnavailableError):
                        await waiting
            await broker.check()
            await broker.close()
        assert wrong == []

    async def test_a_frozen_server(self, impatient: RabbitMQBroker, rabbitmq_server: RabbitMQServer) -> None:
        """A server that is there and answers nothing is waited for no longer than the timeout; then all goes on."""

        async def publish_at_last() -> None:
            async with asyncio.timeout(SECONDS):
                while True:
                    with suppress(UnavailableError):
                        await impatient.publish([uuid4()])
                        break

        await publish_at_last()
        rabbitmq_server.freeze()
        try:
            async with asyncio.timeout(SECONDS):
                with pytest.raises(UnavailableError, match=r"did not answer within 0\.5 s"):
                    await impatient.publish([uuid4()])
                with pytest.raises(UnavailableError, match=r"did not answer within 0\.5 s"):
                    await impatient.check()
        finally:
            rabbitmq_server.thaw()
        await publish_at_last()

    async def test_a_server_that_never_answers(self) -> None:
        """Many who wait for the connection to a server that says nothing all give up in time, not one by one."""

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
            where = f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            broker = RabbitMQBroker(where, timeout=timedelta(seconds=0.3))
            before = time.monotonic()
            outcomes = await asyncio.gather(*(broker.publish([uuid4()]) for _ in range(20)), return_exceptions=True)
            assert time.monotonic() - before < 3
            assert {str(outcome) for outcome in outcomes} == {f"RabbitMQ at {where} did not answer within 0.3 s"}
            await broker.close()

    @pytest.mark.parametrize(
        ("credentials", "vhost", "reason"),
        [("guest:wrong", "/", "ACCESS_REFUSED"), ("guest:guest", "/nowhere", "there is no such virtual host")],
    )
    async def test_a_refused_connection(
        self, rabbitmq_server: RabbitMQServer, credentials: str, vhost: str, reason: str
    ) -> None:
        """A wrong password and a wrong virtual host are told apart, and the password is not repeated."""
        broker = RabbitMQBroker(f"amqp://{credentials}@127.0.0.1:{rabbitmq_server.port}{vhost}")
        with pytest.raises(UnavailableError, match=reason) as refused:
            await broker.check()
        assert f"amqp://guest:***@127.0.0.1:{rabbitmq_server.port}{vhost}" in str(refused.value)

    async def test_a_closed_broker(self, broker: RabbitMQBroker) -> None:
        """A broker that has been closed opens no new connection."""
        await broker.close()
        with pytest.raises(UnavailableError, match="has been closed"):
            await broker.publish([uuid4()])

    async def test_unacked_is_counted_over_all_consumers(self, broker: RabbitMQBroker) -> None:
        """What the consumers of this process hold is counted as unacked, less what has been settled out of order."""
        await broker.publish([uuid4() for _ in range(10)])
        async with broker.consume(prefetch=4) as one, broker.consume(prefetch=3) as other:
            held = await receive(one, 4)
            await receive(other, 3)
            await one.reject(held[2:3])
            async with asyncio.timeout(SECONDS):
                while await broker.stats() != QueueStats(ready=2, unacked=7, delayed=0, dead=1, consumers=2):
                    await asyncio.sleep(0.05)


async def _publish_for_ever(broker: RabbitMQBroker) -> None:
    while True:
        await broker.publish([uuid4() for _ in range(100)])


async def test_an_outage_is_told_once(rabbitmq_url: str) -> None:
    """However often somebody tries to connect; and so is its end, and the next outage."""
    at = urlsplit(rabbitmq_url)
    async with Proxy("127.0.0.1", at.port or 0) as proxy:
        url = at._replace(netloc=f"{at.username}:{at.password}@127.0.0.1:{proxy.port}").geturl()
        broker = RabbitMQBroker(url)
        with structlog.testing.capture_logs() as events:
            for _ in range(2):
                await proxy.cut()
                for _ in range(5):
                    with pytest.raises(UnavailableError):
                        await broker.check()
                await proxy.heal()
                await broker.check()
        await broker.close()
    assert [event["event"] for event in events] == ["broker.unreachable", "broker.connected"] * 2
