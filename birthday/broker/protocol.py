"""What every broker guarantees (delivery at least once, in no particular order), and code that both share.

Both brokers pass the suite in ``tests/integration/test_broker_contract.py``.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar
from uuid import UUID

import orjson

from birthday.errors import UnavailableError

T = TypeVar("T")

Wait: TypeAlias = float | Callable[[], float]
"""Seconds, or a function that returns them. It is called after the first delivery, which may take long to come."""

_UNQUOTED = re.compile(rb"\{messageId:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}")


class Delivery(NamedTuple):
    """One queue message that one consumer holds until it is acked or rejected.

    ``message_id`` is None when the payload is not ``{"messageId": "<uuid>"}``; ``body`` then shows the payload.
    ``redelivered`` says that the message may have been delivered before. ``by_hand`` says that this program did not
    publish it. ``size_bytes`` is set if ``body`` is truncated, and is the full length. ``due_at`` is set if it was
    published ahead of that instant. ``tag`` belongs to the broker.
    """

    tag: int
    message_id: UUID | None
    redelivered: bool
    body: bytes
    by_hand: bool = False
    size_bytes: int | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message in the dead-letter queue. ``message_id`` and ``body`` are as in a ``Delivery``.

    ``reason`` and ``died_at`` come from the broker. They are None if the broker noted nothing, for example because the
    message was put there by hand. ``headers`` are those of the message, in the broker's own terms. ``tag`` belongs to
    the broker.
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
    server: str = field(default="", compare=False)
    """What holds the queue, and its version, as it names itself; empty for the database."""


class Consumer(Protocol):
    """A running subscription. Every method raises ``UnavailableError`` once its connection is gone.

    After that, its deliveries cannot be acked any more: the broker gives all of them to other consumers.
    """

    @property
    def lost(self) -> bool:
        """Whether the subscription is over, as far as is known here."""

    async def receive(self, most: int, wait: Wait) -> list[Delivery]:
        """Wait for at least one delivery, and return at most ``most``.

        After the first delivery, wait at most ``wait`` seconds for more. After ``cease``, return what came before it,
        and then an empty list.
        """

    async def cease(self) -> None:
        """Let no more deliveries come. Those that have come can still be received, acked and rejected."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Tell the broker that these are done."""

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Send these to the dead-letter queue."""


class DeadLetters(Protocol):
    """Browses the dead-letter queue, in no particular order. It may hold what it has shown until it ends.

    So if two browse at the same time, each may see only a part. Every method raises ``UnavailableError`` once the
    broker is gone. A letter that was not dropped by then is still a dead letter.
    """

    async def take(self) -> list[DeadLetter]:
        """Return the next dead letters, hundreds at a time; an empty list at the end.

        Letters that come after the browsing began may be left out.
        """

    async def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Remove letters that this browsing has shown from the queue for good."""


class Broker(Protocol):
    """A message queue with confirms, delays and dead-lettering. Safe for concurrent use within one event loop.

    Every method raises ``UnavailableError`` if the broker cannot be used, and every context on entering; the text says
    where and why.
    """

    async def publish(
        self, message_ids: Sequence[UUID], delay: timedelta = timedelta(), due_at: Sequence[datetime] = ()
    ) -> None:
        """Publish, and return once the broker has confirmed every message.

        With ``delay``, messages can be consumed after about that time, and at most a second later. A broker may deliver
        them early, so a consumer must check whether they are due. ``due_at``, one for each message if there are any,
        delays nothing: it comes with the delivery, to the microsecond, and the worker waits until then.

        Raises:
            UnavailableError: if any is unconfirmed. Some may have been published all the same.
        """

    def consume(self, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        """Subscribe as one more competing consumer with at most ``prefetch`` unacked deliveries.

        On leaving the context, unacked deliveries go back to the queue.
        """

    def dead_letters(self) -> AbstractAsyncContextManager[DeadLetters]:
        """Browse the dead letters. On leaving the context, all that were not dropped are dead letters as before."""

    async def stats(self) -> QueueStats:
        """Return the counts of the queue."""

    async def check(self) -> None:
        """Make sure that the broker can be used now."""

    async def close(self) -> None:
        """Close the connection. Idempotent."""


class Inbox(Generic[T]):
    """Deliveries of a subscription that have come and are not taken yet. For one receiver at a time."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._wanted = 1
        self._arrived = asyncio.Event()
        self._loss: str | None = None
        self._ceased = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, delivery: T) -> None:
        """Add a delivery."""
        self._items.append(delivery)
        if len(self._items) >= self._wanted:
            self._arrived.set()

    def cease(self) -> None:
        """Note that no more will come, so that ``take`` does not wait for it."""
        self._ceased = True
        self._arrived.set()

    def fail(self, reason: str) -> None:
        """Note that the subscription is over: waiting and later calls raise. The first reason counts."""
        if self._loss is None:
            self._loss = reason
        self._arrived.set()

    @property
    def lost(self) -> bool:
        """Whether the subscription is over."""
        return self._loss is not None

    def check(self) -> None:
        """Make sure that the subscription is not over.

        Raises:
            UnavailableError: if it is over; the text says why.
        """
        if self._loss is not None:
            raise UnavailableError("queue", self._loss)

    async def take(self, most: int, wait: Wait) -> list[T]:
        """Wait for the first delivery, and then up to ``wait`` seconds for ``most``. Cancelling loses none.

        After ``cease`` it does not wait, and returns an empty list at the end.

        Raises:
            UnavailableError: if the subscription is over. What is still here cannot be acked any more.
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

    A payload without quotes is accepted too: if an operator pastes the payload from the runbook between double quotes,
    the shell removes those inside it.
    """
    try:
        payload = orjson.loads(body)
        return UUID(payload["messageId"])
    except (ValueError, TypeError, KeyError, AttributeError):
        unquoted = _UNQUOTED.fullmatch(body)
        return UUID(unquoted[1].decode()) if unquoted else None
