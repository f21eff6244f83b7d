"""How messages pass a channel: our own frame path, or aiormq alone, which takes several times the CPU time.

The contract suite runs both. The plain path is kept for comparison, and as a replacement if our own turns out to be
wrong.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import repeat
from typing import Protocol, TypeAlias
from uuid import UUID

import aiormq
from aiormq.abc import ChannelFrame, ConsumerCallback, DeliveredMessage

from birthday.broker.protocol import encode_payload
from birthday.broker.rabbitmq.channel import AmqpChannel
from birthday.broker.rabbitmq.errors import MissingError
from birthday.broker.rabbitmq.frames import ConfirmSink, DeliverySink, encode_publishes
from birthday.broker.rabbitmq.properties import encode_properties, make_properties
from birthday.errors import UnavailableError

OnDelivery: TypeAlias = Callable[[int, bool, bytes, bytes], None]
"""Takes the tag of a delivery, whether it is a redelivery, its encoded properties, and its body."""


class Publishing(Protocol):
    """Publishes on one channel."""

    channel: AmqpChannel

    @property
    def unconfirmed_seconds(self) -> float:
        """How long the oldest unconfirmed publish has been waiting; 0 if there is none, or it is not known."""

    async def publish(
        self, message_ids: Sequence[UUID], due_at: Sequence[datetime], exchange: str, routing_key: str
    ) -> None:
        """Publish all, and wait for all confirms. ``due_at`` has one instant for each message, or none.

        Raises:
            UnavailableError: if any is refused or sent back, or the channel is closed.
        """


class FramePath(Protocol):
    """How a broker publishes and receives thousands of messages on a channel."""

    def publisher(self, channel: AmqpChannel) -> Publishing:
        """Return a publisher for ``channel``, on which nothing has been published yet."""

    def deliver(self, channel: AmqpChannel, on_delivery: OnDelivery) -> ConsumerCallback:
        """Call ``on_delivery`` for each delivery on ``channel``. Return the callback that aiormq needs."""


class OwnPath:
    """Encodes and decodes frames itself; see ``frames.py``."""

    def publisher(self, channel: AmqpChannel) -> "OwnPublisher":
        """Return a publisher that writes many messages at once."""
        return OwnPublisher(channel)

    def deliver(self, channel: AmqpChannel, on_delivery: OnDelivery) -> ConsumerCallback:
        """Take deliveries before aiormq sees them."""
        channel.divert(DeliverySink(on_delivery))
        return _ignore


class OwnPublisher:
    """Publishes on one channel: many messages in one write, whose confirms are counted."""

    def __init__(self, channel: AmqpChannel) -> None:
        """Take over the confirms of ``channel``, on which nothing has been published yet."""
        self.channel = channel
        self._confirms = ConfirmSink()
        self._writing = asyncio.Lock()
        channel.divert(self._confirms)

    @property
    def unconfirmed_seconds(self) -> float:
        """How long the oldest unconfirmed publish has been waiting; see ``Publishing``."""
        return self._confirms.unconfirmed_seconds

    async def publish(
        self, message_ids: Sequence[UUID], due_at: Sequence[datetime], exchange: str, routing_key: str
    ) -> None:
        """Write all, then wait for all confirms; see ``Publishing``."""
        method = aiormq.spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True).marshal()
        properties = map(encode_properties, due_at or repeat(None, len(message_ids)))
        contents = zip(properties, map(encode_payload, message_ids), strict=True)
        raw = self.channel.raw
        frames = encode_publishes(raw.number, method, contents)
        # Confirms are numbered in the order of writing. A write that is cancelled while it waits takes no number.
        async with self._writing:
            if not self.channel.is_open:
                # If this were sent, the server would end the connection, and with it every consumer.
                raise UnavailableError("queue", "the channel has been closed")
            await raw.write_queue.put(ChannelFrame(frames, should_close=False))
            confirmed = self._confirms.expect(len(message_ids))
        await confirmed


class PlainPath:
    """Leaves frames to aiormq."""

    def publisher(self, channel: AmqpChannel) -> "PlainPublisher":
        """Return a publisher that sends message by message."""
        return PlainPublisher(channel)

    def deliver(self, _channel: AmqpChannel, on_delivery: OnDelivery) -> ConsumerCallback:
        """Pass on what aiormq delivers."""

        async def hand_on(message: DeliveredMessage) -> None:
            properties = message.header.properties.marshal()
            on_delivery(message.delivery_tag or 0, bool(message.redelivered), properties, message.body)

        return hand_on


class PlainPublisher:
    """A channel for publishing, with aiormq's own confirms."""

    unconfirmed_seconds = 0.0
    """Not known."""

    def __init__(self, channel: AmqpChannel) -> None:
        self.channel = channel

    async def publish(
        self, message_ids: Sequence[UUID], due_at: Sequence[datetime], exchange: str, routing_key: str
    ) -> None:
        """Publish all at once, and wait for all confirms; see ``Publishing``."""
        if not self.channel.is_open:
            raise UnavailableError("queue", "the channel has been closed")
        each = zip(message_ids, due_at or repeat(None, len(message_ids)), strict=True)
        await asyncio.gather(*(self._publish(*one, exchange, routing_key) for one in each))

    async def _publish(self, message_id: UUID, due_at: datetime | None, exchange: str, routing_key: str) -> None:
        try:
            await self.channel.raw.basic_publish(
                encode_payload(message_id),
                exchange=exchange,
                routing_key=routing_key,
                properties=make_properties(due_at),
                mandatory=True,
            )
        except aiormq.exceptions.PublishError as error:
            raise MissingError(f"what was published was sent back: {error}") from error
        except aiormq.exceptions.DeliveryError as error:
            raise UnavailableError("queue", "what was published was refused: Basic.Nack") from error


async def _ignore(_: DeliveredMessage) -> None:
    """Do nothing, because a sink takes the deliveries before aiormq."""
