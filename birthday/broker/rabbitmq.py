"""The queue in RabbitMQ, 3.10 to 4.x: topology, publishing with confirms, consuming with manual acks.

A broker has one connection, made at the first use and again at the first use after it broke, and on it a channel of its
own for publishing and for each consumer. Every new channel declares the topology, so what an operator has deleted is
back as soon as somebody notices. Nothing waits for the server longer than ``timeout`` says.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import aiormq
import structlog
from aiormq.abc import AbstractConnection, ChannelFrame, DeliveredMessage
from aiormq.connection import TransportFactory
from yarl import URL

from birthday.broker.frames import ConfirmSink, DeliverySink, FrameReader, Sink, encode_publishes
from birthday.broker.protocol import DeadLetter, Delivery, Inbox, QueueStats, Wait, decode_payload, encode_payload
from birthday.broker.window import Window
from birthday.config import mask_url
from birthday.errors import UnavailableError

log = structlog.get_logger()

T = TypeVar("T")

APP_ID: Final = "birthday"
"""Tells what this program has published from what an operator has, who publishes a bare payload."""
EXCHANGE: Final = "birthday_exchange"
QUEUE: Final = "birthday_messages"
"""The queue that workers consume, and its routing key."""
DEAD_LETTER_EXCHANGE: Final = "birthday_dlx"
DEAD_LETTER_QUEUE: Final = "birthday_messages_dlq"
"""The dead-letter queue, and its routing key."""
RETRY_QUEUES: Final = {
    timedelta(seconds=1): "birthday_messages_retry_1s",
    timedelta(seconds=5): "birthday_messages_retry_5s",
    timedelta(seconds=30): "birthday_messages_retry_30s",
    timedelta(minutes=2): "birthday_messages_retry_2m",
    timedelta(minutes=10): "birthday_messages_retry_10m",
}
"""Where a message waits for so long. One queue for each time: messages of mixed age would wait for the one in front."""

# RabbitMQ 4 dead-letters after 20 deliveries unless told otherwise. Each consumer that ends gives back what it holds,
# which counts, and a long outage has many of those. PostgreSQL bounds the attempts; this bounds only a loop gone mad.
_DELIVERY_LIMIT: Final = 10_000
# An operator who looks at a dead letter and puts it back uses up a delivery. No amount of looking may drop it.
_NO_DELIVERY_LIMIT: Final = 2_000_000_000
# Dead-lettering is "at most once", the default: with the other strategy, not every queue comes back after a crash of
# RabbitMQ 3.10. What is lost on the way to another queue, the janitor finds in PostgreSQL.
_QUEUE_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    DEAD_LETTER_QUEUE: {"x-queue-type": "quorum", "x-delivery-limit": _NO_DELIVERY_LIMIT},
    QUEUE: {
        "x-queue-type": "quorum",
        "x-delivery-limit": _DELIVERY_LIMIT,
        "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
        "x-dead-letter-routing-key": DEAD_LETTER_QUEUE,
    },
    **{
        name: {
            "x-queue-type": "quorum",
            "x-message-ttl": round(delay.total_seconds() * 1000),
            "x-dead-letter-exchange": EXCHANGE,
            "x-dead-letter-routing-key": QUEUE,
        }
        for delay, name in RETRY_QUEUES.items()
    },
}

_CONFIRMS_IN_FLIGHT: Final = 500
# Bounds what a walk through the dead letters keeps in memory, and there may be some of a megabyte.
_DEAD_MOST: Final = 200
# A dead letter that does not come for so long may have gone to somebody else.
_DEAD_SECONDS: Final = 0.5
# How long the queue may take to get back what a walk held. After that, somebody else may have it.
_RETURN_SECONDS: Final = 1.0
# How long to be polite. The server cleans up after a connection that just goes.
_CLOSE_SECONDS: Final = 1.0


class RabbitMQBroker:
    """A ``Broker`` on one AMQP connection. Nothing connects before the first use."""

    def __init__(
        self, url: str, *, timeout: timedelta = timedelta(seconds=10), heartbeat: timedelta = timedelta(seconds=15)
    ) -> None:
        """Keep where the server is.

        ``timeout`` bounds every single exchange with it. A peer that vanished without a word is noticed after about
        three times ``heartbeat`` (whole seconds); a ``heartbeat`` in the query of ``url`` wins.
        """
        self._url = f"{url}{'&' if '?' in url else '?'}heartbeat={round(heartbeat.total_seconds())}"
        self._where = f"RabbitMQ at {mask_url(url)}"
        self._seconds = timeout.total_seconds()
        self._opening = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._transport = _Transport()
        self._publisher: _Publisher | None = None
        self._consumers: set[RabbitMQConsumer] = set()
        self._closed = False

    async def publish(self, message_ids: Sequence[UUID], delay: timedelta = timedelta()) -> None:
        """Publish persistent messages, hundreds at a time, and return once each is confirmed; see ``Broker``.

        A delay is spent in the longest retry queue that is not longer, the shortest being one second.

        Raises:
            UnavailableError: if any is refused, belongs to no queue, or is unconfirmed. Some may have been taken.
        """
        exchange, routing_key = _route(delay)
        publisher = await self._open_publisher()
        try:
            for start in range(0, len(message_ids), _CONFIRMS_IN_FLIGHT):
                window = message_ids[start : start + _CONFIRMS_IN_FLIGHT]
                await publisher.channel.ask(publisher.publish(window, exchange, routing_key))
        except UnavailableError:
            # The next one opens a new channel, which declares what was missing.
            if self._publisher is publisher:
                self._publisher = None
            await self._discard(publisher.channel)
            raise

    @asynccontextmanager
    async def consume(self, prefetch: int) -> AsyncIterator["RabbitMQConsumer"]:
        """Subscribe with manual acks on a channel of its own; see ``Broker``.

        Raises:
            UnavailableError: on entering, if the server cannot be reached or holds another topology.
        """
        async with self._turn():
            channel = await self._open_channel()
        consumer = RabbitMQConsumer(channel, prefetch)
        channel.divert(DeliverySink(consumer.on_delivery))
        self._consumers.add(consumer)
        try:
            # Before consuming: a limit that is set later does not hold for what is on its way by then.
            await channel.ask(channel.raw.basic_qos(prefetch_count=prefetch))
            await consumer.subscribe()
            yield consumer
        finally:
            self._consumers.discard(consumer)
            await consumer.leave()
            await self._discard(channel)

    @asynccontextmanager
    async def dead_letters(self) -> AsyncIterator["RabbitMQDeadLetters"]:
        """Walk through the dead-letter queue on a channel of its own, whose end gives back the rest; see ``Broker``.

        Raises:
            UnavailableError: on entering, if the server cannot be reached or holds another topology.
        """
        async with self._turn():
            channel = await self._open_channel()
        try:
            count, _ = await channel.measure(DEAD_LETTER_QUEUE)
            walk = RabbitMQDeadLetters(channel, count)
            yield walk
            await walk.end()
        finally:
            await self._discard(channel)
        with suppress(TimeoutError, UnavailableError):
            async with asyncio.timeout(_RETURN_SECONDS):
                await self._wait_for_dead_letters(walk.kept)

    async def stats(self) -> QueueStats:
        """Ask for the length of each queue.

        AMQP does not tell what is unacked: that is what the consumers of this broker object hold, not the total.

        Raises:
            UnavailableError: if the server cannot be reached or holds another topology.
        """
        async with self._turn():
            channel = await self._open_channel()
        try:
            ready, consumers = await channel.measure(QUEUE)
            dead, _ = await channel.measure(DEAD_LETTER_QUEUE)
            delayed = [(await channel.measure(queue))[0] for queue in RETRY_QUEUES.values()]
        finally:
            await self._discard(channel)
        unacked = sum(consumer.unacked for consumer in self._consumers)
        return QueueStats(ready=ready, unacked=unacked, delayed=sum(delayed), dead=dead, consumers=consumers)

    async def check(self) -> None:
        """Make sure that the server answers and holds our topology; see ``Broker``.

        Raises:
            UnavailableError: if it does not; the text says where and why.
        """
        await self.stats()

    async def close(self) -> None:
        """Close the connection, and with it every subscription; idempotent."""
        self._closed = True
        await self._drop_connection()

    async def _wait_for_dead_letters(self, count: int) -> None:
        """Wait until the queue has noticed that the channel of a walk is closed: another walk may follow at once."""
        async with self._turn():
            channel = await self._open_channel()
        try:
            while (await channel.measure(DEAD_LETTER_QUEUE))[0] < count:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(_RETURN_SECONDS / 100)
        finally:
            await self._discard(channel)

    async def _open_publisher(self) -> "_Publisher":
        if self._publisher is not None and self._publisher.channel.is_open:
            return self._publisher
        async with self._turn():
            if self._publisher is None or not self._publisher.channel.is_open:
                self._publisher = _Publisher(await self._open_channel())
            return self._publisher

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Let one at a time open a channel. The time limit includes the wait: many would wait for long one by one."""
        try:
            async with asyncio.timeout(self._seconds), self._opening:
                yield
        except TimeoutError:
            await self._drop_connection()
            raise UnavailableError("queue", f"{self._where} did not answer within {self._seconds:g} s") from None

    async def _open_channel(self) -> "_Channel":
        """Open a channel, on a new connection if there is none, and declare the topology. Only within ``_turn``."""
        connection = await self._connect()
        raw = await _answer(connection.channel(), self._where, self._seconds)
        channel = _Channel(cast("aiormq.Channel", raw), self._transport.sinks, self._where, self._seconds)
        await channel.declare_topology()
        return channel

    async def _connect(self) -> AbstractConnection:
        if self._closed:
            raise UnavailableError("queue", f"the connection to {self._where} has been closed")
        if self._connection is None or not self._connection.is_opened:
            self._transport = _Transport()
            connecting = aiormq.connect(
                self._url, client_properties={"connection_name": "birthday"}, transport_factory=self._transport
            )
            try:
                self._connection = await _answer(connecting, self._where, self._seconds)
            except UnavailableError as error:
                if not isinstance(error.__cause__, aiormq.InvalidFrameError):
                    raise
                # All that aiormq says is that the last answer was not the one it expected.
                what = "there is no such virtual host, or the user may not use it"
                raise UnavailableError("queue", f"{self._where} closed the connection: {what}") from error.__cause__
            log.info("broker.connected", where=self._where)
        return self._connection

    async def _discard(self, channel: "_Channel") -> None:
        """Close a channel. If that gets no answer, nothing on this connection does."""
        try:
            await self._close_channel(channel)
        finally:
            channel.restore()

    async def _close_channel(self, channel: "_Channel") -> None:
        if not await _close(channel.raw.close()) and channel.raw.connection is self._connection:
            await self._drop_connection()

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            for consumer in self._consumers:
                # Told here: aiormq tells of a connection that is silent only when its heartbeats have run out.
                consumer.lose(connection, f"{self._where}: the connection was given up")
            await _close(connection.close())


class RabbitMQConsumer:
    """A ``Consumer`` on a channel of its own. It ends with the channel, or when the server cancels it."""

    def __init__(self, channel: "_Channel", prefetch: int) -> None:
        """Watch the channel; ``RabbitMQBroker.consume`` subscribes."""
        self._channel = channel
        self._prefetch = prefetch
        self._inbox: Inbox[Delivery] = Inbox()
        self._window = Window(prefetch)
        self._acking = asyncio.Lock()
        self._tag = ""
        channel.raw.on_consumer_cancel_callbacks.add(self._on_cancelled)
        channel.closing.add_done_callback(self._on_closed)

    @property
    def unacked(self) -> int:
        """How many deliveries the server waits for."""
        return len(self._window)

    async def subscribe(self) -> None:
        """Begin to consume.

        Raises:
            UnavailableError: if the server does not let it.
        """
        consuming = self._channel.raw.basic_consume(QUEUE, _ignore, no_ack=False)
        self._tag = (await self._channel.ask(consuming)).consumer_tag or ""

    async def cease(self) -> None:
        """Cancel the subscription. The server's answer comes after all that it has delivered; see ``Consumer``.

        Raises:
            UnavailableError: once the subscription is over.
        """
        await self._channel.ask(self._channel.raw.basic_cancel(self._tag))
        self._inbox.cease()

    async def receive(self, most: int, wait: Wait) -> list[Delivery]:
        """Take what has been delivered; see ``Consumer``.

        Raises:
            UnavailableError: once the subscription is over.
        """
        # No more can come than the server may still deliver: what is acked and not told yet has made no room.
        handed_out = len(self._window) - len(self._inbox)
        return await self._inbox.take(max(1, min(most, self._prefetch - handed_out)), wait)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle these, as soon as one ack can settle many; see ``Consumer``.

        Raises:
            UnavailableError: once the subscription is over.
        """
        await self._settle(finished=[delivery.tag for delivery in deliveries])

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Dead-letter these at once, each by itself, with ``x-death`` telling the reason ``rejected``.

        Raises:
            UnavailableError: once the subscription is over.
        """
        await self._settle(rejected=[delivery.tag for delivery in deliveries])

    async def leave(self) -> None:
        """Settle what is finished and end. The server takes back everything else when the channel closes."""
        with suppress(UnavailableError):
            self._inbox.check()
            await self._channel.ask(self._send((), self._window.rest(), None))
        self._inbox.fail("this subscription has ended")

    def lose(self, connection: AbstractConnection, reason: str) -> None:
        """End, if this subscription is on ``connection``: nothing comes from there any more."""
        if self._channel.raw.connection is connection:
            self._inbox.fail(reason)

    def on_delivery(self, tag: int, redelivered: bool, properties: bytes, body: bytes) -> None:  # noqa: FBT001 - frames
        """Take in what the server delivers."""
        self._window.open(tag)
        self._inbox.put(Delivery(tag, decode_payload(body), redelivered, body, not _is_ours(properties)))

    async def _settle(self, *, finished: Sequence[int] = (), rejected: Sequence[int] = ()) -> None:
        # In turn: an ack for all up to a tag that a later ack has covered already would be an error.
        async with self._acking:
            self._inbox.check()
            rejects, singles, up_to = self._window.settle(finished, rejected)
            try:
                await self._channel.ask(self._send(rejects, singles, up_to))
            except BaseException:
                # The window takes for told what may not have been; a later ack would cover a lost reject.
                self._inbox.fail("an ack to the queue was interrupted")
                raise

    async def _send(self, rejects: Iterable[int], singles: Iterable[int], up_to: int | None) -> None:
        """Tell the server. Rejects come first, since what comes last settles everything before it."""
        raw = self._channel.raw
        for tag in rejects:
            await raw.basic_reject(tag, requeue=False, wait=False)
        for tag in singles:
            await raw.basic_ack(tag, wait=False)
        if up_to is not None:
            await raw.basic_ack(up_to, multiple=True, wait=False)

    def _on_cancelled(self, _: object) -> None:
        self._inbox.fail(f"{self._channel.where} cancelled the subscription: queue {QUEUE} was deleted or moved")

    def _on_closed(self, _: object) -> None:
        self._inbox.fail(f"{self._channel.where}: {self._channel.loss}")


class _Publisher:
    """A channel for publishing: many messages are written as one piece, and their confirms are counted."""

    def __init__(self, channel: "_Channel") -> None:
        """Take over the confirms of ``channel``, which nothing has been published on."""
        self.channel = channel
        self._confirms = ConfirmSink()
        self._writing = asyncio.Lock()
        self._properties = aiormq.spec.Basic.Properties(delivery_mode=2, app_id=APP_ID).marshal()
        channel.divert(self._confirms)

    async def publish(self, message_ids: Sequence[UUID], exchange: str, routing_key: str) -> None:
        """Write all, then wait for all confirms.

        Raises:
            UnavailableError: if any is refused or sent back, or the channel is closed.
        """
        method = aiormq.spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True).marshal()
        bodies = [encode_payload(message_id) for message_id in message_ids]
        raw = self.channel.raw
        frames = encode_publishes(raw.number, method, self._properties, bodies)
        # Confirms come by number, in the order of writing. A write that is cancelled while it waits takes no number.
        async with self._writing:
            if not self.channel.is_open:
                # The server would end the connection, and with it every consumer.
                raise UnavailableError("queue", "the channel has been closed")
            await raw.write_queue.put(ChannelFrame(frames, should_close=False))
            confirmed = self._confirms.expect(len(bodies))
        await confirmed


class RabbitMQDeadLetters:
    """A ``DeadLetters`` that consumes, and acks only what is dropped. The end of its channel gives back the rest.

    Giving back earlier would bring the same ones again. So each step of the walk is a consumer of its own, which gets
    as many as its prefetch and is cancelled before anything is acked: what is dropped makes no room for others.
    """

    def __init__(self, channel: "_Channel", count: int) -> None:
        """Walk through the first ``count``; ``kept`` is how many of them were not dropped."""
        self.kept = count
        self._channel = channel
        self._left = count
        self._inbox: Inbox[DeadLetter] = Inbox()
        channel.closing.add_done_callback(lambda _: self._inbox.fail(f"{channel.where}: {channel.loss}"))

    async def take(self) -> list[DeadLetter]:
        """Consume the next ones; see ``DeadLetters``.

        Raises:
            UnavailableError: if they do not come, or the channel is gone.
        """
        self._inbox.check()
        count = min(self._left, _DEAD_MOST)
        if not count:
            return []
        self._left -= count
        async with self._consuming(count):
            return await self._channel.ask(self._receive(count))

    async def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Ack these; see ``DeadLetters``.

        Raises:
            UnavailableError: if the channel is gone.
        """
        self._inbox.check()
        await self._channel.ask(self._ack(letters))
        self.kept -= len(letters)

    async def end(self) -> None:
        """Make sure that what was dropped is gone.

        Of many acks, the server's channel keeps most until the queue has seen the first ones, and forgets them when it
        is closed. The queue answers who comes and goes only after what it has seen before.

        Raises:
            UnavailableError: if some of it may be a dead letter again.
        """
        async with self._consuming(1):
            pass

    @asynccontextmanager
    async def _consuming(self, count: int) -> AsyncIterator[None]:
        await self._channel.ask(self._channel.raw.basic_qos(prefetch_count=count))
        consuming = self._channel.raw.basic_consume(DEAD_LETTER_QUEUE, self._on_message)
        tag = (await self._channel.ask(consuming)).consumer_tag or ""
        yield
        await self._channel.ask(self._channel.raw.basic_cancel(tag))

    async def _receive(self, count: int) -> list[DeadLetter]:
        letters: list[DeadLetter] = []
        while len(letters) < count:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DEAD_SECONDS):
                    letters += await self._inbox.take(count - len(letters), _DEAD_SECONDS / 2)
                    continue
            ready, _ = await self._channel.measure(DEAD_LETTER_QUEUE)
            if not ready and not len(self._inbox):
                # They were counted at the beginning, and are with somebody else by now.
                self._left = 0
                break
        return letters

    async def _ack(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            await self._channel.raw.basic_ack(letter.tag, wait=False)

    async def _on_message(self, message: DeliveredMessage) -> None:
        self._inbox.put(_dead_letter(message))


class _Transport(TransportFactory):
    """Connects as aiormq would, with a stream in which sinks can take frames. For one connection."""

    def __init__(self) -> None:
        """Begin with no sinks."""
        self.sinks: dict[int, Sink] = {}

    async def create(self, url: URL, **kwargs: Any) -> tuple[FrameReader, asyncio.StreamWriter]:  # noqa: ANN401 - aiormq's
        """Connect to the server, with TLS if ``url`` says so.

        Raises:
            AMQPConnectionError: if it cannot be reached.
        """
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = FrameReader(self.sinks, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=context, **kwargs
            )
        except OSError as error:
            raise aiormq.AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _Channel:
    """An open channel on which every exchange ends in time, with an answer or an ``UnavailableError``."""

    def __init__(self, raw: aiormq.Channel, sinks: dict[int, Sink], where: str, seconds: float) -> None:
        """Watch an open aiormq channel: left alone, it can die and keep its callers waiting for ever.

        ``sinks`` are those of its connection.
        """
        self.raw = raw
        self._sinks = sinks
        # The number may have been that of a channel which the server has closed.
        self._sinks.pop(raw.number, None)
        self._sink: Sink | None = None
        self.where = where
        self.closing = raw.closing
        self._seconds = seconds

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known here."""
        return not self.raw.is_closed and self.raw.connection.is_opened

    @property
    def loss(self) -> str:
        """Why it closed."""
        return _reason(self.closing)

    def divert(self, sink: Sink) -> None:
        """Let ``sink`` take what it knows, before aiormq sees it."""
        self._sinks[self.raw.number] = self._sink = sink

    def restore(self) -> None:
        """Let aiormq have everything again, unless the number is that of another channel by now."""
        if self._sink is not None and self._sinks.get(self.raw.number) is self._sink:
            del self._sinks[self.raw.number]

    async def ask(self, operation: Coroutine[Any, Any, T]) -> T:
        """Do something on this channel.

        Raises:
            UnavailableError: if it fails, takes too long, or the channel closes meanwhile.
        """
        return await _answer(operation, self.where, self._seconds, self.closing)

    async def declare_topology(self) -> None:
        """Declare all exchanges and queues, which changes nothing where they exist.

        Raises:
            UnavailableError: also if something of that name exists with other properties; the text says what to do.
        """
        for exchange in (EXCHANGE, DEAD_LETTER_EXCHANGE):
            operation = self.raw.exchange_declare(exchange, exchange_type="direct", durable=True)
            await self._declare(f"exchange {exchange}", operation)
        for queue, arguments in _QUEUE_ARGUMENTS.items():
            await self._declare(f"queue {queue}", self.raw.queue_declare(queue, durable=True, arguments=arguments))
        await self.ask(self.raw.queue_bind(QUEUE, EXCHANGE, QUEUE))
        await self.ask(self.raw.queue_bind(DEAD_LETTER_QUEUE, DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE))

    async def measure(self, queue: str) -> tuple[int, int]:
        """Return how many messages of a queue are ready, and how many consumers it has.

        Raises:
            UnavailableError: also if there is no such queue.
        """
        declared = await self.ask(self.raw.queue_declare(queue, passive=True))
        return declared.message_count or 0, declared.consumer_count or 0

    async def _declare(self, what: str, operation: Coroutine[Any, Any, object]) -> None:
        try:
            await self.ask(operation)
        except UnavailableError as error:
            if not isinstance(error.__cause__, aiormq.ChannelPreconditionFailed):
                raise
            raise UnavailableError(
                "queue",
                f"{what} in {self.where} exists with other properties than ours ({error.__cause__}); empty and delete "
                "it, and it is declared again as it should be, or give RABBITMQ_URL a virtual host of its own",
            ) from error.__cause__


def _dead_letter(message: DeliveredMessage) -> DeadLetter:
    """Return a message of the dead-letter queue. Its headers may be anything: whoever publishes may set them."""
    headers = message.header.properties.headers or {}
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    reason, died_at = latest.get("reason"), latest.get("time")
    return DeadLetter(
        message.delivery_tag or 0,
        decode_payload(message.body),
        message.body,
        reason if isinstance(reason, str) else None,
        died_at if isinstance(died_at, datetime) else None,
        headers,
    )


def _route(delay: timedelta) -> tuple[str, str]:
    """Return exchange and routing key for a message that shall be consumed after ``delay``, or a little earlier."""
    if delay <= timedelta():
        return EXCHANGE, QUEUE
    rung = max((rung for rung in RETRY_QUEUES if rung <= delay), default=min(RETRY_QUEUES))
    return "", RETRY_QUEUES[rung]


async def _ignore(_: DeliveredMessage) -> None:
    """Do nothing: a sink has taken what aiormq would call back for."""


@lru_cache(maxsize=64)
def _is_ours(properties: bytes) -> bool:
    """Say whether the properties of a message name this program: the same octets nearly every time, so remembered."""
    decoded = aiormq.spec.Basic.Properties()
    with suppress(ValueError, IndexError, RecursionError, struct.error):
        decoded.unmarshal(int.from_bytes(properties[:2]), properties[2:])
    return decoded.app_id == APP_ID


async def _answer(
    operation: Coroutine[Any, Any, T], where: str, seconds: float, closing: asyncio.Future[Any] | None = None
) -> T:
    """Return what ``operation`` does, as long as it does it within ``seconds`` and before ``closing`` is done.

    aiormq tells of a lost connection with errors of its own, RuntimeError, OSError, CancelledError (which must not pass
    for our own) or plain Exception, and some of its waits end with none at all. Here all of that becomes one thing.

    Raises:
        UnavailableError: if it does not; the cause is what aiormq raised.
    """
    task = asyncio.ensure_future(operation)
    watched: set[asyncio.Future[Any]] = {task} if closing is None else {task, closing}
    try:
        await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Not awaited: it may be stuck in a place that takes no cancellation.
        task.cancel()
    if task.done() and not task.cancelled() and task.exception() is None:
        return task.result()
    ended = closing if closing is not None and closing.done() else task
    if not ended.done():
        raise UnavailableError("queue", f"{where} did not answer within {seconds:g} s")
    raise UnavailableError("queue", f"{where}: {_reason(ended)}") from None if ended.cancelled() else ended.exception()


def _reason(ended: asyncio.Future[Any]) -> str:
    error = "" if ended.cancelled() else str(ended.exception() or "")
    return error or "the connection was closed"


async def _close(closing: Coroutine[Any, Any, None]) -> bool:
    """Wait a little for something to close, and say whether it has. If not, it goes on: a cancelled one stays open."""
    task = asyncio.ensure_future(closing)
    await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
    return task.done() and (task.cancelled() or task.exception() is None)
