"""Publishes many messages in one write, and counts their confirms."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import aiormq
from aiormq.abc import ChannelFrame

from birthday.broker.protocol import encode_payload
from birthday.broker.rabbitmq.channel import AmqpChannel
from birthday.broker.rabbitmq.frames import ConfirmSink, encode_publishes
from birthday.errors import UnavailableError

APP_ID: Final = "birthday"
"""Marks what this program has published. An operator publishes a bare payload."""


class Publisher:
    """Publishes on one channel: many messages in one write, whose confirms are counted."""

    def __init__(self, channel: AmqpChannel) -> None:
        """Take over the confirms of ``channel``, on which nothing has been published yet."""
        self.channel = channel
        self._confirms = ConfirmSink()
        self._writing = asyncio.Lock()
        self._properties = aiormq.spec.Basic.Properties(delivery_mode=2, app_id=APP_ID).marshal()
        channel.divert(self._confirms)

    async def publish(self, message_ids: Sequence[UUID], exchange: str, routing_key: str) -> None:
        """Write all, then wait for all confirms."""
        method = aiormq.spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True).marshal()
        bodies = [encode_payload(message_id) for message_id in message_ids]
        raw = self.channel.raw
        frames = encode_publishes(raw.number, method, self._properties, bodies)
        # Confirms are numbered in the order of writing. A write that is cancelled while it waits takes no number.
        async with self._writing:
            if not self.channel.is_open:
                # If this were sent, the server would end the connection, and with it every consumer.
                raise UnavailableError("queue", "the channel has been closed")
            await raw.write_queue.put(ChannelFrame(frames, should_close=False))
            confirmed = self._confirms.expect(len(bodies))
        await confirmed
