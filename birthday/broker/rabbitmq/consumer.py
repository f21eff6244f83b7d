"""Consuming: takes deliveries from the server, and sends acks and rejects."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from aiormq.abc import AbstractConnection, ConsumerCallback

from birthday.broker.protocol import Delivery, Inbox, Wait, decode_payload
from birthday.broker.rabbitmq.channel import AmqpChannel
from birthday.broker.rabbitmq.properties import decode_properties
from birthday.broker.rabbitmq.topology import QUEUE
from birthday.broker.rabbitmq.window import Window
from birthday.errors import UnavailableError


class RabbitMQConsumer:
    """A ``Consumer`` on a channel of its own. It ends with the channel, or when the server cancels it."""

    def __init__(self, channel: AmqpChannel, prefetch: int, on_missing: Callable[[], None]) -> None:
        """Watch the channel; ``RabbitMQBroker.consume`` subscribes. ``on_missing`` is called if the queue is gone."""
        self._channel = channel
        self._on_missing = on_missing
        self._prefetch = prefetch
        self._inbox: Inbox[Delivery] = Inbox()
        self._window = Window(prefetch)
        self._acking = asyncio.Lock()
        self._tag = ""
        self._waited_after = -1
        """After which delivery the last ``receive`` found no room for others; -1 if there was room."""
        self._telling: asyncio.Task[None] | None = None
        channel.raw.on_consumer_cancel_callbacks.add(self._on_cancelled)
        channel.closing.add_done_callback(self._on_closed)

    @property
    def unacked(self) -> int:
        """How many deliveries are unacked from the server's point of view."""
        return len(self._window)

    async def subscribe(self, callback: ConsumerCallback) -> None:
        """Begin to consume; aiormq calls ``callback`` for deliveries that it sees."""
        consuming = self._channel.raw.basic_consume(QUEUE, callback, no_ack=False)
        self._tag = (await self._channel.ask(consuming)).consumer_tag or ""

    async def cease(self) -> None:
        """Cancel the subscription. The server answers this after its last delivery; see ``Consumer``."""
        await self._channel.ask(self._channel.raw.basic_cancel(self._tag))
        self._inbox.cease()

    @property
    def lost(self) -> bool:
        """Whether the subscription is over; see ``Consumer``."""
        return self._inbox.lost

    async def receive(self, most: int, wait: Wait) -> list[Delivery]:
        """Take what has been delivered; see ``Consumer``."""
        is_full = len(self._window) >= self._prefetch and not len(self._inbox)
        is_stuck = is_full and self._window.untold > 0 and self._waited_after == self._window.last
        if is_stuck and (self._telling is None or self._telling.done()):
            # Nothing has come since: what is held for long keeps the others from being acked with it. This is a task,
            # because this receive may be cancelled, and an ack must not be.
            self._telling = asyncio.create_task(self._tell())
        self._waited_after = self._window.last if is_full else -1
        # Do not wait for more than the server may still deliver. An ack that is not sent yet makes no room there.
        handed_out = len(self._window) - len(self._inbox)
        return await self._inbox.take(max(1, min(most, self._prefetch - handed_out)), wait)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Settle these. The ack may be sent later, so that one ack settles many; see ``Consumer``."""
        await self._settle(finished=[delivery.tag for delivery in deliveries])

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Dead-letter these at once, one by one. ``x-death`` then has the reason ``rejected``."""
        await self._settle(rejected=[delivery.tag for delivery in deliveries])

    async def _tell(self) -> None:
        """Ack everything that is finished, one by one. If that fails, ``receive`` says so."""
        with suppress(UnavailableError):
            await self._settle(everything=True)

    async def leave(self) -> None:
        """Ack what is finished, and end. The server takes back everything else when the channel closes."""
        with suppress(UnavailableError):
            self._inbox.check()
            await self._channel.ask(self._send((), self._window.rest(), None))
        self._inbox.fail("this subscription has ended")

    def lose(self, connection: AbstractConnection, reason: str) -> None:
        """End if this subscription is on ``connection``, which delivers nothing any more."""
        if self._channel.raw.connection is connection:
            self._inbox.fail(reason)

    def on_delivery(self, tag: int, redelivered: bool, properties: bytes, body: bytes) -> None:  # noqa: FBT001 - frames
        """Take in what the server delivers."""
        self._window.open(tag)
        is_ours, due_at = decode_properties(properties)
        self._inbox.put(Delivery(tag, decode_payload(body), redelivered, body, not is_ours, None, due_at))

    async def _settle(
        self, *, finished: Sequence[int] = (), rejected: Sequence[int] = (), everything: bool = False
    ) -> None:
        # One at a time. An ack for all tags up to one that a later ack has covered would be an error.
        async with self._acking:
            self._inbox.check()
            rejects, singles, up_to = self._window.settle(finished, rejected)
            singles += self._window.rest() if everything else []
            try:
                await self._channel.ask(self._send(rejects, singles, up_to))
            except BaseException:
                # The window counts acks and rejects as sent that may be lost. A later ack for many would then cover a
                # rejected delivery.
                self._inbox.fail("an ack to the queue was interrupted")
                raise

    async def _send(self, rejects: Iterable[int], singles: Iterable[int], up_to: int | None) -> None:
        """Send rejects and acks. Rejects come first, because the last ack settles everything before it."""
        raw = self._channel.raw
        for tag in rejects:
            await raw.basic_reject(tag, requeue=False, wait=False)
        for tag in singles:
            await raw.basic_ack(tag, wait=False)
        if up_to is not None:
            await raw.basic_ack(up_to, multiple=True, wait=False)

    def _on_cancelled(self, _: object) -> None:
        self._on_missing()
        self._inbox.fail(f"{self._channel.where} cancelled the subscription: queue {QUEUE} was deleted or moved")

    def _on_closed(self, _: object) -> None:
        self._inbox.fail(f"{self._channel.where}: {self._channel.loss}")
