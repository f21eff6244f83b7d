"""What a broker must do, and what may be relied on: at least once, in no particular order. And what both brokers share.

Both brokers pass the suite in ``tests/integration/test_broker_contract.py``.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeAlias, TypeVar
from uuid import UUID

import orjson

from birthday.errors import UnavailableError

T = TypeVar("T")

Wait: TypeAlias = float | Callable[[], float]
"""Seconds, or what to ask for them once the first delivery has come: it may be long until then."""

_UNQUOTED = re.compile(rb"\{messageId:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One queue message in the hands of one consumer, until it is acked or rejected.

    ``message_id`` is None when the payload is not ``{"messageId": "<uuid>"}``; ``body`` then shows what it was.
    ``redelivered`` says that somebody may have had it before, ``by_hand`` that it was not this program that published
    it. ``size_bytes`` is set if ``body`` is only the beginning, and says how long all of it is. ``tag`` belongs to the
    broker.
    """

    tag: int
    message_id: UUID | None
    redelivered: bool
    body: bytes
    by_hand: bool = False
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message in the dead-letter queue. ``message_id`` and ``body`` are as in a ``Delivery``.

    ``reason`` and ``died_at`` are what the broker noted, None if it did not: somebody may have put it there by hand.
    ``headers`` is whatever else came with it, in the broker's own terms. ``tag`` belongs to the broker.
    """

    tag: int
    message_id: UUID | None
    body: bytes
    reason: str | None
    died_at: datetime | None
    headers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Counts of queue messages: ready to be consumed, with a consumer, waiting for a delay, dead-lettered."""

    ready: int
    unacked: int
    delayed: int
    dead: int
    consumers: int


class Consumer(Protocol):
    """A running subscription. Every method raises ``UnavailableError`` once its connection is gone.

    After that nothing that it handed out can be acked: the broker gives all of it to somebody else.
    """

    async def receive(self, most: int, wait: Wait) -> list[Delivery]:
        """Return at least one delivery as soon as there is one, and at most ``most``.

        After the first one, waits no more than ``wait`` seconds for others to come. Returns none at the end of what
        came before ``cease``.
        """
        ...

    async def cease(self) -> None:
        """Let no more come. What has come can still be received, acked and rejected."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Say that these are done with."""
        ...

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Send these to the dead-letter queue."""
        ...


class DeadLetters(Protocol):
    """A look through the dead-letter queue, in no particular order. It may hold what it has shown until it ends.

    So of two looks at a time, each may see a part only. Every method raises ``UnavailableError`` once the broker is
    gone; what was not dropped by then is still a dead letter.
    """

    async def take(self) -> list[DeadLetter]:
        """Return the next dead letters, hundreds at a time; none at the end.

        What dies after the browsing began may be left out.
        """
        ...

    async def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Remove these, which this browsing has shown, from the queue for good."""
        ...


class Broker(Protocol):
    """A message queue with confirms, delays and dead-lettering. Safe for concurrent use within one event loop."""

    async def publish(self, message_ids: Sequence[UUID], delay: timedelta = timedelta()) -> None:
        """Publish, and return once the broker has taken responsibility for every one of them.

        With ``delay`` they can be consumed after about that long, and never more than a second late; a broker may
        hand them out early, so a consumer checks what is due.

        Raises:
            UnavailableError: if any is unconfirmed. Some may have been taken all the same.
        """
        ...

    def consume(self, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        """Subscribe as one more competing consumer with at most ``prefetch`` unacked deliveries.

        On leaving the context, what is unacked goes back to the queue.

        Raises:
            UnavailableError: on entering, if the broker cannot be reached.
        """
        ...

    def dead_letters(self) -> AbstractAsyncContextManager[DeadLetters]:
        """Walk through the dead letters. On leaving the context, all that was not dropped is there as before.

        Raises:
            UnavailableError: on entering, if the broker cannot be reached.
        """
        ...

    async def stats(self) -> QueueStats:
        """Return the counts of the queue.

        Raises:
            UnavailableError: if the broker cannot be reached.
        """
        ...

    async def check(self) -> None:
        """Make sure that the broker can be used now.

        Raises:
            UnavailableError: if it cannot; the text says where and why.
        """
        ...

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        ...


class Inbox(Generic[T]):
    """What a subscription has brought and nobody has taken yet. For one receiver at a time."""

    def __init__(self) -> None:
        """Start empty."""
        self._items: deque[T] = deque()
        self._wanted = 1
        self._arrived = asyncio.Event()
        self._loss: str | None = None
        self._ceased = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, delivery: T) -> None:
        """Add what has come in."""
        self._items.append(delivery)
        if len(self._items) >= self._wanted:
            self._arrived.set()

    def cease(self) -> None:
        """Say that no more will come: nobody needs to wait for it."""
        self._ceased = True
        self._arrived.set()

    def fail(self, reason: str) -> None:
        """Say that the subscription is over. All who wait here or come later are told; the first reason counts."""
        if self._loss is None:
            self._loss = reason
        self._arrived.set()

    def check(self) -> None:
        """Make sure that the subscription still holds.

        Raises:
            UnavailableError: with the reason why it does not.
        """
        if self._loss is not None:
            raise UnavailableError("queue", self._loss)

    async def take(self, most: int, wait: Wait) -> list[T]:
        """Wait for the first one and then up to ``wait`` seconds for ``most``. Being cancelled loses none.

        After ``cease`` there is no waiting, and none at the end.

        Raises:
            UnavailableError: if the subscription is over; what is still here cannot be acked any more.
        """
        await self._reach(1)
        seconds = wait() if callable(wait) else wait
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._reach(most)
        self.check()
        return [self._items.popleft() for _ in range(min(most, len(self._items)))]

    async def _reach(self, count: int) -> None:
        self._wanted = count
        self._arrived.clear()
        if len(self._items) < count and self._loss is None and not self._ceased:
            await self._arrived.wait()


def encode_payload(message_id: UUID) -> bytes:
    """Return the payload of the contract for one message."""
    return b'{"messageId":"%s"}' % str(message_id).encode()


def decode_payload(body: bytes) -> UUID | None:
    """Return the message id in a payload, or None for anything that is not one.

    A shell takes the quotes out of a payload that an operator pastes between double quotes, as the runbook writes it.
    """
    if unquoted := _UNQUOTED.fullmatch(body):
        return UUID(unquoted[1].decode())
    try:
        payload = orjson.loads(body)
        return UUID(payload["messageId"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
