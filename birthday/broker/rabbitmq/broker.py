"""The queue in RabbitMQ, 3.10 to 4.x, as a ``Broker``: one connection with several channels.

Publishing has a channel of its own, and so has each consumer. Nothing waits for the server longer than ``timeout``.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from aiormq.abc import AbstractConnection

from birthday.broker.protocol import QueueStats
from birthday.broker.rabbitmq.connection import AmqpConnection
from birthday.broker.rabbitmq.consumer import RabbitMQConsumer
from birthday.broker.rabbitmq.dead_letters import RabbitMQDeadLetters
from birthday.broker.rabbitmq.errors import MissingError, NoAnswerError
from birthday.broker.rabbitmq.paths import FramePath, OwnPath, Publishing
from birthday.broker.rabbitmq.topology import DEAD_LETTER_QUEUE, QUEUE, RETRY_QUEUES, look, route
from birthday.errors import UnavailableError

_CONFIRMS_IN_FLIGHT: Final = 500
# Parts and multiples of the time limit. If a confirm takes longer than the first, the queue cannot be used now. If it
# takes longer than the second, another node is tried: a cluster gives up on a silent node in a minute and a quarter.
_SLOW_CONFIRM: Final = 0.5
_LAST_CONFIRM: Final = 9
# How long to wait until the queue has back what browsing held. After that, another consumer may have it.
_RETURN_SECONDS: Final = 1.0


class RabbitMQBroker:
    """A ``Broker`` on one AMQP connection. Nothing connects before the first use."""

    def __init__(
        self,
        url: str,
        *,
        timeout: timedelta = timedelta(seconds=10),
        heartbeat: timedelta = timedelta(seconds=5),
        path: FramePath | None = None,
    ) -> None:
        """Keep the addresses of the servers. ``path`` is our own frame path by default.

        ``timeout`` bounds every exchange with the server. A peer that dies silently is noticed after between two and
        three times ``heartbeat`` (whole seconds). A ``heartbeat`` in the query of ``url`` takes precedence.
        """
        self._seconds = timeout.total_seconds()
        self._connection = AmqpConnection(url, timeout, heartbeat, self._on_drop)
        self._path: FramePath = path or OwnPath()
        self._publisher: Publishing | None = None
        self._consumers: set[RabbitMQConsumer] = set()

    async def publish(
        self, message_ids: Sequence[UUID], delay: timedelta = timedelta(), due_at: Sequence[datetime] = ()
    ) -> None:
        """Publish persistent messages, hundreds at a time, and return once each is confirmed; see ``Broker``.

        A delayed message goes to the longest retry queue that is not longer than ``delay``. The shortest one holds
        messages for a second.
        """
        exchange, routing_key = route(delay)
        publisher = await self._open_publisher()
        try:
            for start in range(0, len(message_ids), _CONFIRMS_IN_FLIGHT):
                end = start + _CONFIRMS_IN_FLIGHT
                window, due = message_ids[start:end], due_at[start:end]
                await publisher.channel.ask(publisher.publish(window, due, exchange, routing_key))
        except NoAnswerError:
            # The channel stays: if the leader of a queue is silent, the next leader confirms what was published on this
            # channel. A new channel would wait until the cluster has given up on the silent node.
            if publisher.channel.is_open and publisher.unconfirmed_seconds > _LAST_CONFIRM * self._seconds:
                await self._connection.drop()
            else:
                await self._connection.drop_if_silent()
            raise
        except UnavailableError as error:
            if isinstance(error, MissingError):
                self._connection.forget_topology()
            # The next publish opens a new channel.
            if self._publisher is publisher:
                self._publisher = None
            await self._connection.discard(publisher.channel)
            raise

    @asynccontextmanager
    async def consume(self, prefetch: int) -> AsyncIterator[RabbitMQConsumer]:
        """Subscribe with manual acks on a channel of its own; see ``Broker``."""
        async with self._connection.channel() as channel:
            consumer = RabbitMQConsumer(channel, prefetch, self._connection.forget_topology)
            callback = self._path.deliver(channel, consumer.on_delivery)
            self._consumers.add(consumer)
            try:
                # Set before consuming, because a later limit does not apply to deliveries that are already on their
                # way.
                await channel.ask(channel.raw.basic_qos(prefetch_count=prefetch))
                await consumer.subscribe(callback)
                yield consumer
            except MissingError:
                self._connection.forget_topology()
                raise
            finally:
                self._consumers.discard(consumer)
                await consumer.leave()

    @asynccontextmanager
    async def dead_letters(self) -> AsyncIterator[RabbitMQDeadLetters]:
        """Browse the dead-letter queue on a channel of its own. Closing it gives back the rest; see ``Broker``."""
        # The queue may have been deleted: this declares it again.
        await self._look()
        async with self._connection.channel(declaring=False) as channel:
            count, _ = await channel.measure(DEAD_LETTER_QUEUE)
            browsing = RabbitMQDeadLetters(channel, count)
            yield browsing
            await browsing.end()
        # Another browsing may follow at once, so wait until the queue has back what this one held.
        with suppress(TimeoutError, UnavailableError):
            async with asyncio.timeout(_RETURN_SECONDS), self._connection.channel(declaring=False) as channel:
                while (await channel.measure(DEAD_LETTER_QUEUE))[0] < browsing.kept:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(_RETURN_SECONDS / 100)

    async def stats(self) -> QueueStats:
        """Ask for the length of each queue. Nothing is declared, unless a queue is missing: then the whole topology is.

        AMQP does not report unacked messages. So ``unacked`` counts those of this object's consumers, not all.
        """
        try:
            return await self._measure(declaring=False)
        except MissingError:
            self._connection.forget_topology()
            return await self._measure(declaring=True)

    async def _measure(self, *, declaring: bool) -> QueueStats:
        try:
            async with self._connection.channel(declaring=declaring) as channel, asyncio.timeout(self._seconds):
                ready, consumers = await channel.measure(QUEUE)
                dead, _ = await channel.measure(DEAD_LETTER_QUEUE)
                delayed = [(await channel.measure(queue))[0] for queue in RETRY_QUEUES.values()]
        except TimeoutError:
            raise self._connection.no_answer() from None
        unacked = sum(consumer.unacked for consumer in self._consumers)
        server = self._connection.server
        return QueueStats(
            ready=ready, unacked=unacked, delayed=sum(delayed), dead=dead, consumers=consumers, server=server
        )

    async def check(self) -> None:
        """Make sure that the server answers, holds our queues, and confirms what is published; see ``Broker``."""
        await self._look()
        publisher = self._publisher
        waited = publisher.unconfirmed_seconds if publisher is not None and publisher.channel.is_open else 0.0
        if waited > _SLOW_CONFIRM * self._seconds:
            where = self._connection.where
            raise UnavailableError("queue", f"{where} has not confirmed what was published {waited:.0f} s ago")

    async def _look(self) -> None:
        """Make sure that the server answers. Declare the topology if something is missing."""
        try:
            async with self._connection.channel(declaring=False) as channel:
                await look(channel)
        except MissingError:
            self._connection.forget_topology()
            async with self._connection.channel():
                pass

    async def close(self) -> None:
        """Close the connection, and with it every subscription; idempotent."""
        await self._connection.close()

    async def _open_publisher(self) -> Publishing:
        if self._publisher is not None and self._publisher.channel.is_open:
            return self._publisher
        async with self._connection.turn():
            if self._publisher is None or not self._publisher.channel.is_open:
                self._publisher = self._path.publisher(await self._connection.open_channel())
            return self._publisher

    def _on_drop(self, connection: AbstractConnection, reason: str) -> None:
        for consumer in self._consumers:
            consumer.lose(connection, reason)
