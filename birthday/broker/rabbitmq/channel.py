"""An AMQP channel with a time limit for every exchange, and the stream below it, from which sinks take frames."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import aiormq
from aiormq.connection import TransportFactory
from yarl import URL

from birthday.broker.rabbitmq.errors import MissingError, NoAnswerError
from birthday.broker.rabbitmq.frames import FrameReader, Sink
from birthday.errors import UnavailableError

T = TypeVar("T")

# If the other host does not confirm what was sent to it for this long, Linux ends the connection.
_UNCONFIRMED_SECONDS: Final = 10
# Short, because the server cleans up after a connection that ends without a handshake.
_CLOSE_SECONDS: Final = 1.0


class AmqpChannel:
    """An open channel on which every exchange ends in time, with an answer or an ``UnavailableError``."""

    def __init__(self, raw: aiormq.Channel, sinks: dict[int, Sink], where: str, seconds: float) -> None:
        """Watch an open aiormq channel, because it can die without telling its callers, who then wait for ever.

        ``sinks`` are those of its connection.
        """
        self.raw = raw
        self._sinks = sinks
        # A channel that the server has closed may have had the same number.
        self._sinks.pop(raw.number, None)
        self._sink: Sink | None = None
        self.where = where
        self.closing = raw.closing
        self._seconds = seconds

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used, as far as is known here."""
        return not self.raw.is_closed and self.raw.connection.is_opened

    @property
    def loss(self) -> str:
        """Why the channel closed."""
        return reason(self.closing)

    def divert(self, sink: Sink) -> None:
        """Let ``sink`` take the frames that it knows before aiormq sees them."""
        self._sinks[self.raw.number] = self._sink = sink

    def restore(self) -> None:
        """Let aiormq have all frames again, unless another channel has this number by now."""
        if self._sink is not None and self._sinks.get(self.raw.number) is self._sink:
            del self._sinks[self.raw.number]

    async def ask(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run an operation on this channel."""
        return await answer(operation, self.where, self._seconds, self.closing)

    async def measure(self, queue: str) -> tuple[int, int]:
        """Return how many messages of a queue are ready, and how many consumers it has."""
        declared = await self.ask(self.raw.queue_declare(queue, passive=True))
        return declared.message_count or 0, declared.consumer_count or 0


class DivertingTransport(TransportFactory):
    """Connects as aiormq does, but with a stream from which sinks can take frames. For one connection."""

    def __init__(self) -> None:
        self.sinks: dict[int, Sink] = {}
        self._reader: FrameReader | None = None

    @property
    def silent_seconds(self) -> float:
        """How long the server has sent nothing, not even a heartbeat."""
        return 0.0 if self._reader is None else asyncio.get_running_loop().time() - self._reader.heard_at

    async def create(self, url: URL, **kwargs: Any) -> tuple[FrameReader, asyncio.StreamWriter]:  # noqa: ANN401 - aiormq's
        """Connect to the server, with TLS if ``url`` says so.

        Raises:
            AMQPConnectionError: if it cannot be reached.
        """
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        self._reader = reader = FrameReader(self.sinks, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=context, **kwargs
            )
        except OSError as error:
            raise aiormq.AMQPConnectionError(*error.args) from error
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            limit = _UNCONFIRMED_SECONDS * 1000
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def answer(
    operation: Coroutine[Any, Any, T], where: str, seconds: float, closing: asyncio.Future[Any] | None = None
) -> T:
    """Return the result of ``operation`` if it ends within ``seconds`` and before ``closing`` is done.

    aiormq reports a lost connection with errors of its own, RuntimeError, OSError, CancelledError (which must not be
    mistaken for our own) or plain Exception. Some of its waits never end. Here all of these become one error.

    Raises:
        MissingError: if an exchange or a queue of ours is missing.
        NoAnswerError: if the time runs out.
        UnavailableError: if there is no result for another reason; the cause is what aiormq raised, if anything.
    """
    task = asyncio.ensure_future(operation)
    watched: set[asyncio.Future[Any]] = {task} if closing is None else {task, closing}
    try:
        await asyncio.wait(watched, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if closing is not None and _is_on_closed_channel(task):
            # The server has closed the channel; why is known in a moment.
            await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
    finally:
        # Not awaited, because it may be stuck where it cannot be cancelled.
        task.cancel()
        task.add_done_callback(_forget)
    if task.done() and not task.cancelled() and task.exception() is None:
        return task.result()
    ended = closing if closing is not None and closing.done() else task
    if not ended.done():
        raise NoAnswerError(where, seconds)
    cause = None if ended.cancelled() else ended.exception()
    text = f"{where}: {reason(ended)}"
    if isinstance(cause, aiormq.ChannelNotFoundEntity | MissingError):
        raise MissingError(text) from cause
    raise UnavailableError("queue", text) from cause


def reason(ended: asyncio.Future[Any]) -> str:
    """Say why something ended, in the words of aiormq if there are any."""
    error = "" if ended.cancelled() else str(ended.exception() or "")
    return error or "the connection was closed"


async def close_politely(closing: Coroutine[Any, Any, None]) -> bool:
    """Wait a second for something to close, and say whether it has.

    If it has not, it goes on closing, because cancelling it would leave it open.
    """
    task = asyncio.ensure_future(closing)
    task.add_done_callback(_forget)
    await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
    return task.done() and (task.cancelled() or task.exception() is None)


def _is_on_closed_channel(task: asyncio.Future[Any]) -> bool:
    return task.done() and not task.cancelled() and isinstance(task.exception(), aiormq.ChannelInvalidStateError)


def _forget(task: asyncio.Future[Any]) -> None:
    """Retrieve the error of a task that is not awaited any more, because asyncio would log it otherwise."""
    if not task.cancelled():
        task.exception()
