"""What both brokers promise: the docstrings of ``birthday/broker/protocol.py``, sentence by sentence."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from birthday.broker import Broker, Consumer, DeadLetter, Delivery, QueueStats
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.broker.rabbitmq.paths import FramePath, OwnPath, PlainPath
from birthday.broker.rabbitmq.topology import EXCHANGE, QUEUE
from birthday.config import mask_url
from birthday.errors import UnavailableError
from tests.support.postgres import pool_by_transaction
from tests.support.rabbitmq import RabbitMQServer

SECONDS = 10.0
"""How long something may take that should take no time."""
LEASE = timedelta(seconds=1)
EMPTY = QueueStats(ready=0, unacked=0, delayed=0, dead=0, consumers=0)


class Queue(Protocol):
    """One queue, shared by several processes, each of which has a broker."""

    async def connect(self) -> Broker:
        """Return the broker of one more process."""
        ...

    async def crash(self, broker: Broker) -> None:
        """Break every connection of one process."""
        ...

    async def insert(self, body: str) -> None:
        """Put something into the queue as an operator does it by hand."""
        ...

    async def close(self) -> None:
        """End all processes."""
        ...


class RabbitMQQueue:
    """A queue in RabbitMQ."""

    def __init__(self, server: RabbitMQServer, url: str, path: FramePath) -> None:
        """Take the URL of an empty virtual host."""
        self._server = server
        self._url = url
        self._path = path
        self._brokers: list[RabbitMQBroker] = []

    async def connect(self) -> Broker:
        """Return the broker of one more process."""
        self._brokers.append(RabbitMQBroker(self._url, path=self._path))
        return self._brokers[-1]

    async def crash(self, broker: Broker) -> None:
        """Close the connection, which leaves the server with everything that is unacked."""
        await broker.close()

    async def insert(self, body: str) -> None:
        """Publish to the exchange with no properties at all."""
        message = {"properties": {}, "routing_key": QUEUE, "payload": body, "payload_encoding": "string"}
        path = f"exchanges{urlsplit(self._url).path}/{EXCHANGE}/publish"
        assert await asyncio.to_thread(self._server.manage, "POST", path, message) == {"routed": True}

    async def close(self) -> None:
        """End all processes."""
        for broker in self._brokers:
            await broker.close()


class PostgresQueue:
    """A queue in PostgreSQL."""

    def __init__(self, url: str, pooler_url: str | None = None) -> None:
        """Take the URL of a migrated database, and that of a pooler that hands its connections out by transaction."""
        self._url = url
        self._pooler_url = pooler_url
        self._pools: dict[Broker, asyncpg.Pool] = {}

    async def connect(self) -> Broker:
        """Return the broker of one more process, with short leases."""
        if self._pooler_url is None:
            pool = await asyncpg.create_pool(self._url, min_size=0, max_size=4)
        else:
            pool = await pool_by_transaction(self._pooler_url, 4)
        broker = PostgresBroker(pool, lease=LEASE)
        self._pools[broker] = pool
        return broker

    async def crash(self, broker: Broker) -> None:
        """Break the connections and let no new one be made, so that only the leases can end what is held."""
        self._pools[broker].terminate()

    async def insert(self, body: str) -> None:
        """Insert a row, which notifies nobody."""
        connection = await asyncpg.connect(self._url)
        await connection.execute("INSERT INTO queue_messages (body) VALUES ($1)", body)
        await connection.close()

    async def close(self) -> None:
        """End all processes."""
        for pool in self._pools.values():
            await pool.close()


@pytest.fixture(
    params=["rabbitmq", "rabbitmq-plain", "postgres", pytest.param("postgres-pooler", marks=pytest.mark.long)]
)
def empty_queue(request: pytest.FixtureRequest) -> Queue:
    """Return a queue of each kind: RabbitMQ by our frame path and by aiormq's own, PostgreSQL, and behind a pooler."""
    if request.param == "postgres":
        return PostgresQueue(request.getfixturevalue("database_url"))
    if request.param == "postgres-pooler":
        return PostgresQueue(request.getfixturevalue("database_url"), request.getfixturevalue("pooler_url"))
    path = PlainPath() if request.param == "rabbitmq-plain" else OwnPath()
    return RabbitMQQueue(request.getfixturevalue("rabbitmq_server"), request.getfixturevalue("rabbitmq_url"), path)


@pytest.fixture
async def queue(empty_queue: Queue) -> AsyncIterator[Queue]:
    """Return a queue whose processes end with the test."""
    yield empty_queue
    await empty_queue.close()


@pytest.fixture
async def broker(queue: Queue) -> Broker:
    """Return the broker of one process."""
    return await queue.connect()


def new_ids(number: int) -> list[UUID]:
    """Return so many message ids."""
    return [uuid4() for _ in range(number)]


def ids_of(deliveries: Sequence[Delivery]) -> set[UUID | None]:
    """Return the message ids of deliveries."""
    return {delivery.message_id for delivery in deliveries}


async def receive(consumer: Consumer, number: int) -> list[Delivery]:
    """Receive exactly so many deliveries, in as many batches as it takes."""
    received: list[Delivery] = []
    async with asyncio.timeout(SECONDS):
        while len(received) < number:
            received += await consumer.receive(number - len(received), 0)
    return received


async def bury(queue: Queue, *bodies: str) -> None:
    """Let so many payloads become dead letters."""
    broker = await queue.connect()
    dead = (await broker.stats()).dead + len(bodies)
    for body in bodies:
        await queue.insert(body)
    async with broker.consume(prefetch=len(bodies)) as consumer:
        await consumer.reject(await receive(consumer, len(bodies)))
        await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=dead, consumers=1))


async def bury_ids(broker: Broker, ids: Sequence[UUID]) -> None:
    """Let messages become dead letters."""
    await broker.publish(ids)
    async with broker.consume(prefetch=len(ids)) as consumer:
        await consumer.reject(await receive(consumer, len(ids)))
        await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=len(ids), consumers=1))


async def look_at_all(broker: Broker) -> list[DeadLetter]:
    """Walk through all dead letters and drop none."""
    found: list[DeadLetter] = []
    async with asyncio.timeout(SECONDS), broker.dead_letters() as browsing:
        while letters := await browsing.take():
            found += letters
    return found


async def stats_become(broker: Broker, expected: QueueStats) -> None:
    """Wait until the counts are as expected: a broker may bring them up to date a moment later."""
    deadline = time.monotonic() + SECONDS
    while (stats := await broker.stats()) != expected and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert stats == expected


class TestPublishing:
    """``Broker.publish``."""

    async def test_published_messages_are_delivered(self, broker: Broker) -> None:
        """What has been published is there for a consumer who comes later: its id, its payload, for the first time."""
        [message_id] = new_ids(1)
        await broker.publish([message_id])

        async with broker.consume(prefetch=10) as consumer:
            [delivery] = await receive(consumer, 1)

        assert delivery.message_id == message_id
        assert delivery.body == b'{"messageId":"%s"}' % str(message_id).encode()
        assert not delivery.redelivered

    async def test_when_a_message_is_due_comes_with_it(self, broker: Broker) -> None:
        """Each message has its own instant, to the microsecond, also when it comes again; it is not delayed by that."""
        nine = datetime(2027, 3, 1, 9, tzinfo=UTC)
        due = dict(zip(new_ids(3), (nine, nine, nine + timedelta(microseconds=1)), strict=True))
        await broker.publish(list(due), due_at=list(due.values()))
        [plain] = new_ids(1)
        await broker.publish([plain])

        for _ in range(2):
            async with broker.consume(prefetch=10) as consumer:
                deliveries = await receive(consumer, 4)
            assert {one.message_id: one.due_at for one in deliveries} == due | {plain: None}
            assert not any(one.by_hand for one in deliveries)

    async def test_a_waiting_consumer_is_woken(self, queue: Queue, broker: Broker) -> None:
        """A consumer that waits gets a message when another process publishes it."""
        ids = new_ids(1)
        async with broker.consume(prefetch=10) as consumer:
            receiving = asyncio.create_task(receive(consumer, 1))
            await (await queue.connect()).publish(ids)
            assert ids_of(await receiving) == set(ids)

    async def test_a_large_batch(self, broker: Broker) -> None:
        """A batch beyond what is in flight at a time arrives complete, each message once."""
        ids = new_ids(2500)
        await broker.publish(ids)

        async with broker.consume(prefetch=300) as consumer:
            received: list[Delivery] = []
            while len(received) < len(ids):
                batch = await receive(consumer, 100)
                await consumer.ack(batch)
                received += batch
            assert len(received) == len(ids)
            assert ids_of(received) == set(ids)
        await stats_become(broker, EMPTY)

    async def test_an_empty_batch(self, broker: Broker) -> None:
        """Publishing nothing does nothing."""
        await broker.publish([])
        assert await broker.stats() == EMPTY

    async def test_concurrent_publishing(self, broker: Broker) -> None:
        """Any number of tasks may publish through one broker at the same time, the first time included."""
        batches = [new_ids(3) for _ in range(20)]
        await asyncio.gather(*(broker.publish(batch) for batch in batches))

        async with broker.consume(prefetch=100) as consumer:
            assert ids_of(await receive(consumer, 60)) == {message_id for batch in batches for message_id in batch}

    @pytest.mark.parametrize(
        ("delay", "earliest", "latest"), [(0.2, 0.15, 1.2), (1.0, 0.95, 2.0), (1.6, 0.95, 2.6)], ids=str
    )
    async def test_a_delayed_message_comes_later(
        self, broker: Broker, delay: float, earliest: float, latest: float
    ) -> None:
        """A delayed message is counted as such, and comes after its delay or earlier, and at most a second late."""
        delayed, prompt = new_ids(2)
        async with broker.consume(prefetch=10) as consumer:
            before = time.monotonic()
            await broker.publish([delayed], timedelta(seconds=delay))
            published = time.monotonic()
            await broker.publish([prompt])
            [first] = await receive(consumer, 1)
            assert first.message_id == prompt
            await consumer.ack([first])
            assert (await broker.stats()).delayed == 1
            [second] = await receive(consumer, 1)
            arrived = time.monotonic()
            await consumer.ack([second])

        assert second.message_id == delayed
        assert not second.redelivered
        assert arrived - before >= earliest
        # What the servers take on a busy machine comes on top.
        assert arrived - published <= latest + 0.5
        await stats_become(broker, EMPTY)


class TestReceiving:
    """``Consumer.receive``."""

    async def test_one_is_enough(self, broker: Broker) -> None:
        """A lone message is returned without waiting for others when ``wait`` is 0, whatever ``most`` is."""
        ids = new_ids(1)
        await broker.publish(ids)
        async with broker.consume(prefetch=10) as consumer, asyncio.timeout(SECONDS):
            assert ids_of(await consumer.receive(most=10, wait=0)) == set(ids)

    async def test_others_are_waited_for(self, broker: Broker) -> None:
        """After the first one, others are gathered, and no longer waited for once there are as many as asked for."""
        ids = new_ids(5)
        async with broker.consume(prefetch=10) as consumer:
            receiving = asyncio.create_task(consumer.receive(most=5, wait=60))
            for message_id in ids:
                await broker.publish([message_id])
            async with asyncio.timeout(SECONDS):
                assert ids_of(await receiving) == set(ids)

    async def test_waiting_ends(self, broker: Broker) -> None:
        """When no others come, the first one is returned after ``wait`` seconds."""
        ids = new_ids(1)
        await broker.publish(ids)
        async with broker.consume(prefetch=10) as consumer, asyncio.timeout(SECONDS):
            before = time.monotonic()
            assert ids_of(await consumer.receive(most=5, wait=0.2)) == set(ids)
            assert time.monotonic() - before >= 0.19

    async def test_no_more_than_asked_for(self, broker: Broker) -> None:
        """At most ``most`` are returned, and the rest the next time."""
        ids = new_ids(5)
        await broker.publish(ids)
        async with broker.consume(prefetch=10) as consumer, asyncio.timeout(SECONDS):
            first = await consumer.receive(most=2, wait=1)
            rest = await receive(consumer, 3)
            assert len(first) == 2
            assert ids_of(first) | ids_of(rest) == set(ids)

    async def test_a_cancelled_receive_takes_nothing(self, broker: Broker) -> None:
        """What comes in while a receive is cancelled is there for the next one."""
        ids = new_ids(3)
        async with broker.consume(prefetch=10) as consumer:
            receiving = asyncio.create_task(consumer.receive(most=4, wait=60))
            await broker.publish(ids)
            await stats_become(broker, QueueStats(ready=0, unacked=3, delayed=0, dead=0, consumers=1))
            receiving.cancel()
            assert ids_of(await receive(consumer, 3)) == set(ids)

    async def test_what_is_held_for_long_does_not_stop_the_others(self, broker: Broker) -> None:
        """The first deliveries stay open while those after them are done with: who goes on asking gets more."""
        ids = new_ids(12)
        await broker.publish(ids)
        async with broker.consume(prefetch=8) as consumer, asyncio.timeout(SECONDS):
            received = await receive(consumer, 8)
            await consumer.ack(received[3:])
            for _ in range(20):
                # However soon it is given up, a receive does no harm.
                with suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        received += await consumer.receive(4, 0)
            while len(received) < len(ids):
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        received += await consumer.receive(4, 0)
        assert ids_of(received) == set(ids)

    async def test_no_more_than_the_prefetch(self, broker: Broker) -> None:
        """At most ``prefetch`` deliveries are out; each one that is done with makes room for another."""
        ids = new_ids(8)
        await broker.publish(ids)
        async with broker.consume(prefetch=3) as consumer:
            held = await receive(consumer, 3)
            stats = await broker.stats()
            assert (stats.ready, stats.unacked) == (5, 3)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await consumer.receive(1, 0)
            await consumer.ack(held[:1])
            [fourth] = await receive(consumer, 1)
            await consumer.reject(held[1:2])
            [fifth] = await receive(consumer, 1)
            assert len(ids_of([*held, fourth, fifth])) == 5

    async def test_a_full_prefetch_is_not_waited_for(self, broker: Broker) -> None:
        """A receive that asks for more than there is room for returns when the room is full, not after ``wait``."""
        await broker.publish(new_ids(8))
        async with broker.consume(prefetch=3) as consumer, asyncio.timeout(SECONDS):
            assert len(await consumer.receive(most=100, wait=60)) == 3

    async def test_consumers_compete(self, queue: Queue) -> None:
        """Consumers of several processes share the messages, and none is handed to two of them."""
        ids = new_ids(100)
        first, second = await queue.connect(), await queue.connect()
        async with first.consume(prefetch=40) as one, second.consume(prefetch=40) as other:
            await first.publish(ids)
            held = [await receive(consumer, 40) for consumer in (one, other)]
            await one.ack(held[0])
            held.append(await receive(one, 20))
            received = [delivery.message_id for part in held for delivery in part]
            assert len(received) == len(ids)
            assert set(received) == set(ids)

    @pytest.mark.parametrize(
        "body", ["", "birthday", "{}", "[]", "7", '{"messageId":7}', '{"messageId":"x"}', '"\u00e9']
    )
    async def test_garbage_is_delivered_as_such(self, queue: Queue, broker: Broker, body: str) -> None:
        """A payload that is none of ours comes without a message id and can be rejected like any other."""
        async with broker.consume(prefetch=10) as consumer:
            await queue.insert(body)
            [delivery] = await receive(consumer, 1)
            assert delivery.message_id is None
            assert delivery.body == body.encode()
            await consumer.reject([delivery])
        await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=1, consumers=0))

    @pytest.mark.parametrize(
        "form", [' { "messageId": "%s" }\n', pytest.param("{messageId:%s}", id="what a shell leaves of it")]
    )
    async def test_a_payload_by_hand(self, queue: Queue, broker: Broker, form: str) -> None:
        """A payload that an operator puts into the queue by hand is a message like any other."""
        [message_id] = new_ids(1)
        async with broker.consume(prefetch=10) as consumer:
            await queue.insert(form % message_id)
            [delivery] = await receive(consumer, 1)
            assert delivery.message_id == message_id


class TestSettling:
    """``Consumer.ack``, ``Consumer.reject``, and what becomes of the rest."""

    async def test_acked_messages_are_gone(self, queue: Queue, broker: Broker) -> None:
        """What has been acked is delivered to nobody any more."""
        await broker.publish(new_ids(5))
        async with broker.consume(prefetch=10) as consumer:
            await consumer.ack(await receive(consumer, 5))
        await stats_become(await queue.connect(), EMPTY)

    async def test_nothing_to_ack(self, broker: Broker) -> None:
        """Acking and rejecting nothing does nothing."""
        async with broker.consume(prefetch=10) as consumer:
            await consumer.ack([])
            await consumer.reject([])
            await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=0, consumers=1))

    @pytest.mark.parametrize("prefetch", [5, 1000])
    async def test_acks_out_of_order(self, broker: Broker, prefetch: int) -> None:
        """Of messages acked last to first and one by one, exactly the one that was not acked comes back."""
        ids = new_ids(5)
        await broker.publish(ids)
        async with broker.consume(prefetch) as consumer:
            held = await receive(consumer, 5)
            for delivery in reversed(held):
                if delivery.message_id != ids[2]:
                    await consumer.ack([delivery])
        async with broker.consume(prefetch) as consumer:
            [again] = await receive(consumer, 1)
            assert again.message_id == ids[2]
            assert again.redelivered
            await consumer.ack([again])
        await stats_become(broker, EMPTY)

    async def test_a_straggler_stops_nobody(self, broker: Broker) -> None:
        """While one message is still being worked at, acks of all others keep making room."""
        ids = new_ids(50)
        await broker.publish(ids)
        async with broker.consume(prefetch=4) as consumer:
            [straggler] = await receive(consumer, 1)
            others: list[Delivery] = []
            while len(others) < 49:
                [delivery] = await receive(consumer, 1)
                await consumer.ack([delivery])
                others.append(delivery)
            await consumer.ack([straggler])
            assert ids_of([straggler, *others]) == set(ids)
        await stats_become(broker, EMPTY)

    async def test_acks_and_rejects_mixed(self, broker: Broker) -> None:
        """Acks and rejects in any order, by several tasks at a time, hit what they name and nothing else."""
        ids = new_ids(40)
        await broker.publish(ids)
        async with broker.consume(prefetch=40) as consumer:
            held = await receive(consumer, 40)
            await asyncio.gather(
                *(
                    consumer.reject([delivery]) if index % 3 == 1 else consumer.ack([delivery])
                    for index, delivery in enumerate(held)
                    if index % 5
                )
            )
        rejected = sum(1 for index in range(40) if index % 3 == 1 and index % 5)
        async with broker.consume(prefetch=40) as consumer:
            assert ids_of(await receive(consumer, 8)) == ids_of(held[::5])
            await stats_become(broker, QueueStats(ready=0, unacked=8, delayed=0, dead=rejected, consumers=1))

    async def test_rejected_messages_are_dead_letters(self, broker: Broker) -> None:
        """What has been rejected is counted as dead and not delivered again; what comes after it is."""
        first, second = new_ids(2)
        await broker.publish([first])
        async with broker.consume(prefetch=10) as consumer:
            await consumer.reject(await receive(consumer, 1))
            await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=1, consumers=1))
            await broker.publish([second])
            assert ids_of(await receive(consumer, 1)) == {second}

    async def test_leaving_puts_back(self, broker: Broker) -> None:
        """On leaving, what is unacked goes to the next consumer at once, marked as redelivered, received or not."""
        ids = new_ids(6)
        await broker.publish(ids)
        async with broker.consume(prefetch=4) as consumer:
            assert len(await receive(consumer, 2)) == 2
            await stats_become(broker, QueueStats(ready=2, unacked=4, delayed=0, dead=0, consumers=1))
        before = time.monotonic()
        async with broker.consume(prefetch=10) as consumer:
            again = await receive(consumer, 6)
        assert time.monotonic() - before < LEASE.total_seconds()
        assert ids_of(again) == set(ids)
        assert sum(delivery.redelivered for delivery in again) == 4

    async def test_ceasing_lets_nothing_more_come(self, broker: Broker) -> None:
        """What has come can be received and acked, then the wait ends; the rest comes to others, for the first time."""
        ids = new_ids(20)
        await broker.publish(ids)
        async with broker.consume(8) as consumer:
            await stats_become(broker, QueueStats(ready=12, unacked=8, delayed=0, dead=0, consumers=1))
            await consumer.cease()
            had: list[Delivery] = []
            while some := await consumer.receive(3, SECONDS):
                had += some
                await consumer.ack(some)
            assert len(ids_of(had)) == 8
        async with broker.consume(20) as consumer:
            others = await receive(consumer, 12)
            await consumer.ack(others)
        assert ids_of(had) | ids_of(others) == set(ids)
        assert not any(delivery.redelivered for delivery in [*had, *others])

    async def test_ceasing_ends_a_wait(self, broker: Broker) -> None:
        """Whoever waits for the first delivery is told that none will come."""
        async with broker.consume(8) as consumer:
            waiting = asyncio.create_task(consumer.receive(3, 0))
            await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=0, consumers=1))
            await consumer.cease()
            async with asyncio.timeout(SECONDS):
                assert await waiting == []

    async def test_an_error_puts_back(self, broker: Broker) -> None:
        """An error that ends the consumer's context passes through unchanged, and what was unacked comes back."""
        ids = new_ids(1)
        await broker.publish(ids)

        async def fail() -> None:
            async with broker.consume(prefetch=10) as consumer:
                await receive(consumer, 1)
                raise OSError("of our own")

        with pytest.raises(OSError, match="of our own"):
            await fail()
        async with broker.consume(prefetch=10) as consumer:
            assert ids_of(await receive(consumer, 1)) == set(ids)

    async def test_after_leaving(self, broker: Broker) -> None:
        """A consumer whose context was left refuses to do anything."""
        await broker.publish(new_ids(2))
        async with broker.consume(prefetch=10) as consumer:
            [first, second] = await receive(consumer, 2)
        with pytest.raises(UnavailableError, match="ended"):
            await consumer.receive(1, 0)
        with pytest.raises(UnavailableError, match="ended"):
            await consumer.ack([first])
        with pytest.raises(UnavailableError, match="ended"):
            await consumer.reject([second])

    async def test_a_dead_consumer_loses_nothing(self, queue: Queue, broker: Broker) -> None:
        """When a process dies without a word, another one gets what it had, marked as redelivered."""
        ids = new_ids(3)
        await broker.publish(ids)
        dying = await queue.connect()
        async with dying.consume(prefetch=10) as victim:
            await receive(victim, 3)
            await queue.crash(dying)
        async with broker.consume(prefetch=10) as consumer:
            again = await receive(consumer, 3)
        assert ids_of(again) == set(ids)
        assert all(delivery.redelivered for delivery in again)

    async def test_a_broken_connection_is_told(self, queue: Queue, broker: Broker) -> None:
        """When its connection breaks, a consumer that waits is told so, and so is everything it does later."""
        await broker.publish(new_ids(2))
        dying = await queue.connect()
        async with dying.consume(prefetch=10) as consumer:
            [first, second] = await receive(consumer, 2)
            receiving = asyncio.create_task(consumer.receive(1, 0))
            await asyncio.sleep(0)
            await queue.crash(dying)
            async with asyncio.timeout(SECONDS):
                with pytest.raises(UnavailableError) as told:
                    await receiving
                with pytest.raises(UnavailableError):
                    await consumer.ack([first])
                with pytest.raises(UnavailableError):
                    await consumer.reject([second])
        assert told.value.resource == "queue"


class TestDeadLetters:
    """``Broker.dead_letters``."""

    async def test_an_empty_queue(self, broker: Broker) -> None:
        """Where nothing is dead, browsing is over at once."""
        assert await look_at_all(broker) == []

    async def test_a_look_shows_everything(self, queue: Queue, broker: Broker) -> None:
        """A dead letter is shown with its id, its payload as it came, why and when it died; garbage has no id."""
        [message_id] = new_ids(1)
        bodies = [f' {{ "messageId": "{message_id}" }}', "", "birthday", '{"messageId":7}', "\u00e9" * 100_000]
        began = datetime.now(UTC) - timedelta(seconds=2)
        await bury(queue, *bodies)
        letters = {letter.body.decode(): letter for letter in await look_at_all(broker)}
        assert letters.keys() == set(bodies)
        assert {body: letter.message_id for body, letter in letters.items() if letter.message_id} == {
            bodies[0]: message_id
        }
        for letter in letters.values():
            assert letter.reason == "rejected"
            assert letter.died_at is not None
            assert began < letter.died_at < datetime.now(UTC) + timedelta(seconds=2)

    async def test_looking_changes_nothing(self, queue: Queue, broker: Broker) -> None:
        """After a look everything is there at once as before, for another look of another process too."""
        ids = new_ids(3)
        await bury_ids(broker, ids)
        for _ in range(3):
            assert sorted(letter.message_id or UUID(int=0) for letter in await look_at_all(broker)) == sorted(ids)
            assert (await broker.stats()).dead == 3
        assert len(await look_at_all(await queue.connect())) == 3

    async def test_dropped_ones_are_gone_and_no_others(self, broker: Broker) -> None:
        """Of more than come at a time, every third is dropped: exactly the others are there for the next walk."""
        ids = new_ids(1500)
        await bury_ids(broker, ids)
        dropped: set[UUID | None] = set()
        batches = 0
        async with asyncio.timeout(SECONDS), broker.dead_letters() as browsing:
            while letters := await browsing.take():
                batches += 1
                await browsing.drop(letters[::3])
                dropped |= {letter.message_id for letter in letters[::3]}
        assert batches > 1
        left = [letter.message_id for letter in await look_at_all(broker)]
        assert sorted([*left, *dropped], key=str) == sorted(ids, key=str)
        await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=len(left), consumers=0))

    async def test_everything_dropped(self, broker: Broker) -> None:
        """All of many dead letters can be dropped in one walk."""
        await bury_ids(broker, new_ids(700))
        async with asyncio.timeout(SECONDS), broker.dead_letters() as browsing:
            while letters := await browsing.take():
                await browsing.drop(letters)
        assert await look_at_all(broker) == []
        await stats_become(broker, EMPTY)

    async def test_a_walk_that_ends_early_drops_what_it_said(self, broker: Broker) -> None:
        """Leaving after the first batch keeps what was not reached, and what was dropped stays dropped."""
        ids = new_ids(1200)
        await bury_ids(broker, ids)
        async with broker.dead_letters() as browsing:
            first = await browsing.take()
            await browsing.drop(first[:100])
        left = {letter.message_id for letter in await look_at_all(broker)}
        assert left == set(ids) - {letter.message_id for letter in first[:100]}

    async def test_an_error_keeps_the_rest(self, broker: Broker) -> None:
        """An error that ends browsing passes through unchanged, and nothing is lost that was not dropped."""
        ids = new_ids(10)
        await bury_ids(broker, ids)

        async def fail() -> None:
            async with broker.dead_letters() as browsing:
                await browsing.take()
                raise OSError("of our own")

        with pytest.raises(OSError, match="of our own"):
            await fail()
        await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=10, consumers=0))
        assert len(await look_at_all(broker)) == 10

    async def test_a_process_that_dies_on_the_way_loses_none(self, queue: Queue, broker: Broker) -> None:
        """Dead letters that browsing had in its hands are there again when its process dies, and it is told."""
        ids = new_ids(10)
        await bury_ids(broker, ids)
        dying = await queue.connect()

        async def die() -> None:
            async with dying.dead_letters() as browsing:
                letters = await browsing.take()
                await queue.crash(dying)
                await browsing.drop(letters)

        with pytest.raises(UnavailableError):
            await die()
        await stats_become(broker, QueueStats(ready=0, unacked=0, delayed=0, dead=10, consumers=0))
        assert {letter.message_id for letter in await look_at_all(broker)} == set(ids)

    async def test_two_walks_at_once(self, queue: Queue, broker: Broker) -> None:
        """Two processes that drop everything at the same time end, and leave nothing."""
        await bury_ids(broker, new_ids(900))

        async def drop_all(one: Broker) -> None:
            async with one.dead_letters() as browsing:
                while letters := await browsing.take():
                    await browsing.drop(letters)

        async with asyncio.timeout(SECONDS):
            await asyncio.gather(drop_all(broker), drop_all(await queue.connect()))
        assert await look_at_all(broker) == []

    async def test_the_living_are_left_alone(self, broker: Broker) -> None:
        """A walk neither shows nor touches what is ready, delayed or with a consumer."""
        await bury_ids(broker, new_ids(1))
        await broker.publish(new_ids(3))
        await broker.publish(new_ids(1), timedelta(minutes=10))
        async with broker.consume(prefetch=1) as consumer:
            held = await receive(consumer, 1)
            async with broker.dead_letters() as browsing:
                letters = await browsing.take()
                await browsing.drop(letters)
            assert len(letters) == 1
            await stats_become(broker, QueueStats(ready=2, unacked=1, delayed=1, dead=0, consumers=1))
            await consumer.ack(held)


class TestStatsAndEnds:
    """``Broker.stats``, ``Broker.check`` and ``Broker.close``, and a server that cannot be reached."""

    async def test_everything_is_counted(self, broker: Broker) -> None:
        """Each message is counted in exactly one place: ready, unacked, delayed or dead; consumers are counted too."""
        await broker.publish(new_ids(7))
        await broker.publish(new_ids(2), timedelta(minutes=10))
        await stats_become(broker, QueueStats(ready=7, unacked=0, delayed=2, dead=0, consumers=0))
        async with broker.consume(prefetch=4) as consumer, broker.consume(prefetch=1):
            await consumer.reject((await receive(consumer, 1))[:1])
            await stats_become(broker, QueueStats(ready=1, unacked=5, delayed=2, dead=1, consumers=2))
        await stats_become(broker, QueueStats(ready=6, unacked=0, delayed=2, dead=1, consumers=0))

    async def test_a_broker_that_can_be_used(self, broker: Broker) -> None:
        """A check of a server that is there passes, before anything else has been done."""
        await broker.check()

    async def test_closing_twice(self, broker: Broker) -> None:
        """Closing is idempotent."""
        await broker.publish(new_ids(1))
        await broker.close()
        await broker.close()

    async def test_an_unreachable_server(self, unreachable: tuple[Broker, str]) -> None:
        """Where nobody listens, everything says so at once: which resource, where, and no password."""
        broker, where = unreachable
        async with asyncio.timeout(SECONDS):
            for attempt in (
                broker.check,
                broker.stats,
                partial(broker.publish, new_ids(1)),
                partial(_subscribe, broker),
                partial(look_at_all, broker),
            ):
                with pytest.raises(UnavailableError, match=where) as error:
                    await attempt()
                assert error.value.resource == "queue"
                assert "s3cret" not in str(error.value)


@pytest.fixture(params=["rabbitmq", "postgres"])
async def unreachable(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Broker, str]]:
    """Return a broker of either kind whose server is not there, and where that would be."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if request.param == "rabbitmq":
        rabbitmq = RabbitMQBroker(f"amqp://scheduler:s3cret@127.0.0.1:{port}/birthday")
        yield rabbitmq, f"127.0.0.1:{port}/birthday"
        await rabbitmq.close()
        return
    url = f"postgresql://scheduler:s3cret@127.0.0.1:{port}/birthday_scheduler"
    async with asyncpg.create_pool(url, min_size=0, max_size=2) as pool:
        yield (
            PostgresBroker(pool, where=f"the queue in PostgreSQL at {mask_url(url)}"),
            f"127.0.0.1:{port}/birthday_scheduler",
        )


async def _subscribe(broker: Broker) -> None:
    async with broker.consume(prefetch=1):
        pass
