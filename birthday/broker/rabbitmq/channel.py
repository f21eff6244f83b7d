"""An AMQP channel on which every exchange ends in time, and the stream below it in which sinks can take frames."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import aiormq
from aiormq.connection import TransportFactory
from yarl import URL

from birthday.broker.rabbitmq.errors import MissingError
from birthday.broker.rabbitmq.frames import FrameReader, Sink
from birthday.errors import UnavailableError

T = TypeVar("T")

# The server cleans up after a connection that just goes.
_CLOSE_SECONDS: Final = 1.0


class AmqpChannel:
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
        return reason(self.closing)

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
        return await answer(operation, self.where, self._seconds, self.closing)

    async def measure(self, queue: str) -> tuple[int, int]:
        """Return how many messages of a queue are ready, and how many consumers it has.

        Raises:
            UnavailableError: also if there is no such queue.
        """
        declared = await self.ask(self.raw.queue_declare(queue, passive=True))
        return declared.message_count or 0, declared.consumer_count or 0


class DivertingTransport(TransportFactory):
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


async def answer(
    operation: Coroutine[Any, Any, T], where: str, seconds: float, closing: asyncio.Future[Any] | None = None
) -> T:
    """Return what ``operation`` does, as long as it does it within ``seconds`` and before ``closing`` is done.

    aiormq tells of a lost connection with errors of its own, RuntimeError, OSError, CancelledError (which must not pass
    for our own) or plain Exception, and some of its waits end with none at all. Here all of that becomes one thing.

    Raises:
        MissingError: if something of the topology is not there.
        UnavailableError: if it does not; the cause is what aiormq raised.
    """
    task = asyncio.ensure_future(operation)
    watched: set[asyncio.Future[Any]] = {task} if closing is None else {task, closing}
    try:
        await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Not awaited: it may be stuck in a place that takes no cancellation.
        task.cancel()
        task.add_done_callback(_forget)
    if task.done() and not task.cancelled() and task.exception() is None:
        return task.result()
    ended = closing if closing is not None and closing.done() else task
    if not ended.done():
        raise UnavailableError("queue", f"{where} did not answer within {seconds:g} s")
    cause = None if ended.cancelled() else ended.exception()
    text = f"{where}: {reason(ended)}"
    if isinstance(cause, aiormq.ChannelNotFoundEntity | MissingError):
        raise MissingError(text) from cause
    raise UnavailableError("queue", text) from cause


def reason(ended: asyncio.Future[Any]) -> str:
    """Say why something ended, in the words of aiormq if it has any."""
    error = "" if ended.cancelled() else str(ended.exception() or "")
    return error or "the connection was closed"


async def close_politely(closing: Coroutine[Any, Any, None]) -> bool:
    """Wait a little for something to close, and say whether it has. If not, it goes on: a cancelled one stays open."""
    task = asyncio.ensure_future(closing)
    task.add_done_callback(_forget)
    await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
    return task.done() and (task.cancelled() or task.exception() is None)


def _forget(task: asyncio.Future[Any]) -> None:
    """Take what a task ends with after nobody waits for it any more: asyncio would report it as lost."""
    if not task.cancelled():
        task.exception()
