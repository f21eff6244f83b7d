"""Browses the dead-letter queue from its beginning, and drops letters from it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final

from aiormq.abc import DeliveredMessage

from birthday.broker.protocol import DeadLetter, Inbox, decode_payload
from birthday.broker.rabbitmq.channel import AmqpChannel
from birthday.broker.rabbitmq.topology import DEAD_LETTER_QUEUE

# Bounds the memory of one step, because some dead letters may have a megabyte.
_BATCH_LIMIT: Final = 200
# If a dead letter has not come after this time, another consumer may have it.
_DEAD_SECONDS: Final = 0.5


class RabbitMQDeadLetters:
    """A ``DeadLetters`` that consumes, and acks only what is dropped. Closing its channel gives back the rest.

    If letters were given back earlier, the same ones would come again. So each step has a consumer of its own, which
    gets as many letters as its prefetch. It is cancelled before anything is acked, so that a dropped letter makes no
    room for others.
    """

    def __init__(self, channel: AmqpChannel, count: int) -> None:
        """Browse the first ``count`` letters; ``kept`` is how many of them were not dropped."""
        self.kept = count
        self._channel = channel
        self._left = count
        self._inbox: Inbox[DeadLetter] = Inbox()
        channel.closing.add_done_callback(lambda _: self._inbox.fail(f"{channel.where}: {channel.loss}"))

    async def take(self) -> list[DeadLetter]:
        """Consume the next ones; see ``DeadLetters``."""
        self._inbox.check()
        count = min(self._left, _BATCH_LIMIT)
        if not count:
            return []
        self._left -= count
        async with self._consuming(count):
            return await self._channel.ask(self._receive(count))

    async def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Ack these; see ``DeadLetters``."""
        self._inbox.check()
        await self._channel.ask(self._ack(letters))
        self.kept -= len(letters)

    async def end(self) -> None:
        """Make sure that what was dropped is gone.

        If there are many acks, the server's channel keeps most of them until the queue has processed the first ones. If
        the channel is closed before that, the acks that it keeps are lost. The queue answers a consumer that comes or
        goes only after it has processed everything before.

        Raises:
            UnavailableError: if some dropped letters may be dead letters again.
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
                # The others were counted at the beginning, but another consumer has them by now.
                self._left = 0
                break
        return letters

    async def _ack(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            await self._channel.raw.basic_ack(letter.tag, wait=False)

    async def _on_message(self, message: DeliveredMessage) -> None:
        self._inbox.put(_dead_letter(message))


def _dead_letter(message: DeliveredMessage) -> DeadLetter:
    """Return a message of the dead-letter queue. Its headers may be anything, because any publisher can set them."""
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
