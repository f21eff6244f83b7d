"""Takes the most frequent AMQP frames out of the stream, before aiormq decodes them one by one.

For a delivery, aiormq needs three objects, three turns of a queue and a task. For a publish, it needs a lock, a future
and more. Besides sending, that is most of the processor time that a worker spends on a message. So deliveries and
confirms are decoded here. All other frames (handshake, topology, heartbeats, the end of a channel) stay in the stream
unchanged.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from birthday.broker.rabbitmq.errors import MissingError
from birthday.errors import UnavailableError

_METHOD: Final = 1
_HEADER: Final = 2
_BODY: Final = 3
_FRAME_END: Final = 0xCE
_HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_DELIVER: Final = b"\x00\x3c\x00\x3c"
_PUBLISH: Final = b"\x00\x3c\x00\x28"
_RETURN: Final = b"\x00\x3c\x00\x32"
_ACK: Final = b"\x00\x3c\x00\x50"
_NACK: Final = b"\x00\x3c\x00\x78"

# AMQP 0-9-1, sections 2.3 and 4.2: kind, channel and size precede the payload of a frame, and one octet follows.
_ENVELOPE: Final = struct.Struct(">BHI")
_TAG_AND_BITS: Final = struct.Struct(">QB")
_CONTENT: Final = struct.Struct(">HHQ")
_BASIC: Final = 60


def encode_publishes(channel: int, publish: bytes, contents: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the frames that publish properties and bodies, one body frame each; ``publish`` has the arguments."""
    method = _frame(_METHOD, channel, _PUBLISH + publish)
    parts: list[bytes] = []
    for properties, body in contents:
        header = _CONTENT.pack(_BASIC, 0, len(body)) + properties
        parts += method, _frame(_HEADER, channel, header), _frame(_BODY, channel, body)
    return b"".join(parts)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b%c" % (_ENVELOPE.pack(kind, channel, len(payload)), payload, _FRAME_END)


class Sink(Protocol):
    """Takes frames of one channel."""

    def take(self, kind: int, payload: bytes) -> bool:
        """Take a frame, or return False to leave it in the stream."""

    def take_alike(self, data: bytes, first: int, content: int, end: int) -> int:
        """Take what follows ``data[first:end]`` and looks the same; return where it ends.

        The frames in ``data[first:end]`` were taken just now, from a method to a body, which begins at ``content``.
        """


class FrameReader(asyncio.StreamReader):
    """A stream that contains only the frames that no sink has taken."""

    def __init__(self, sinks: Mapping[int, Sink], loop: asyncio.AbstractEventLoop) -> None:
        """Let ``sinks`` take the frames of their channels. The keys are channel numbers; sinks may be added later."""
        super().__init__(loop=loop)
        self._sinks = sinks
        self._rest = b""
        self._clock = loop.time
        self.heard_at = loop.time()
        """When the server sent something, by the clock of the event loop."""

    def feed_data(self, data: bytes) -> None:  # type: ignore[override] # what transports feed is bytes
        """Give each complete frame to the sink of its channel, or leave it in the stream."""
        self.heard_at = self._clock()
        data = self._rest + data
        left = bytearray()
        taken = False
        start = first = 0
        latest: Sink | None = None
        while len(data) - start >= _ENVELOPE.size:
            kind, channel, size = _ENVELOPE.unpack_from(data, start)
            begin = start + _ENVELOPE.size
            end = begin + size
            if end >= len(data):
                break
            sink = self._sinks.get(channel)
            following = end + 1
            if sink is not None and data[end] == _FRAME_END and sink.take(kind, data[begin:end]):
                taken = True
                if kind == _METHOD:
                    first, latest = start, sink
                elif latest is not sink:
                    latest = None
                elif kind == _BODY:
                    following = sink.take_alike(data, first, begin, following)
            else:
                latest = None
                left += data[start:following]
            start = following
        self._rest = data[start:]
        if taken:
            # The server sends no heartbeats while it sends other frames, but aiormq must see that the server is alive.
            left += _HEARTBEAT
        super().feed_data(bytes(left))

    def feed_eof(self) -> None:
        """Pass on the incomplete rest, because a server that speaks another protocol sends no frames.

        asyncio calls this twice: when the other side has ended the stream, and when the connection is then closed.
        """
        if self._rest:
            super().feed_data(self._rest)
            self._rest = b""
        super().feed_eof()


class DeliverySink:
    """Takes deliveries, and passes on tag, redelivered flag, encoded properties and body."""

    def __init__(self, on_delivery: Callable[[int, bool, bytes, bytes], None]) -> None:
        self._on_delivery = on_delivery
        self._tag: int | None = None
        self._redelivered = False
        self._properties = b""
        self._body = b""
        self._left = 0

    def take(self, kind: int, payload: bytes) -> bool:
        """Take the frames of a delivery: method, header, and as many bodies as it needs."""
        if kind == _METHOD:
            if not payload.startswith(_DELIVER):
                return False
            self._tag, bits = _TAG_AND_BITS.unpack_from(payload, 5 + payload[4])
            self._redelivered = bool(bits)
            return True
        if self._tag is None:
            return False
        if kind == _HEADER:
            _, _, self._left = _CONTENT.unpack_from(payload)
            self._properties, self._body = payload[_CONTENT.size :], b""
        elif kind == _BODY:
            self._body += payload
            self._left -= len(payload)
        if self._left == 0:
            tag, self._tag = self._tag, None
            self._on_delivery(tag, self._redelivered, self._properties, self._body)
        return True

    def take_alike(self, data: bytes, first: int, content: int, end: int) -> int:
        """Take the deliveries that differ from this one only in tag, redelivered flag and body; see ``Sink``.

        While the queue is long, these are nearly all. Decoding their frames one by one takes twice as long.
        """
        size = end - first
        count = (len(data) - end) // size
        if self._tag is not None or count == 0:
            return end
        # The delivery's tag comes after the envelope, class and method, and the consumer's tag, which has a length.
        tag_at = _ENVELOPE.size + 5 + data[first + _ENVELOPE.size + 4]
        fixed = content - first - tag_at - _TAG_AND_BITS.size
        alike = struct.Struct(f">{tag_at}sQB{fixed}s{end - content - 1}sB")
        before, _, _, between, body, _ = alike.unpack_from(data, first)
        if body != self._body:
            # This one has several body frames.
            return end
        for one in alike.iter_unpack(memoryview(data)[end : end + count * size]):
            if one[0] != before or one[3] != between or one[5] != _FRAME_END:
                break
            self._on_delivery(one[1], bool(one[2]), self._properties, one[4])
            end += size
        return end


class ConfirmSink:
    """Takes confirms. Every publish on its channel must be announced with ``expect``, in the order of writing."""

    def __init__(self) -> None:
        """Begin with a new channel, whose confirms count from 1."""
        self._last = 0
        self._windows: dict[int, _Confirming] = {}
        self._returned = False

    @property
    def unconfirmed_seconds(self) -> float:
        """How long the oldest unconfirmed publish has been waiting; 0 if there is none."""
        oldest = next(iter(self._windows.values()), None)
        return 0.0 if oldest is None else asyncio.get_running_loop().time() - oldest.since

    def expect(self, count: int) -> asyncio.Future[None]:
        """Return a future that is done once the next ``count`` publishes are confirmed.

        It fails with an ``UnavailableError`` if one of them, or another publish under way, is refused or sent back.
        """
        loop = asyncio.get_running_loop()
        window = _Confirming(count, loop.create_future(), loop.time())
        self._windows |= dict.fromkeys(range(self._last + 1, self._last + count + 1), window)
        self._last += count
        return window.done

    def take(self, kind: int, payload: bytes) -> bool:
        """Take confirms, refusals, and messages that are sent back because they belong to no queue."""
        if kind != _METHOD:
            taken, self._returned = self._returned, self._returned and kind != _BODY
            return taken
        method = payload[:4]
        if method == _RETURN:
            self._returned = True
            reason = payload[7 : 7 + payload[6]].decode(errors="replace")
            self._refuse(MissingError(f"what was published was sent back: {reason}"))
        elif method in {_ACK, _NACK}:
            tag, bits = _TAG_AND_BITS.unpack_from(payload, 4)
            if method == _NACK:
                self._refuse(UnavailableError("queue", "what was published was refused: Basic.Nack"))
            self._confirm(tag, multiple=bool(bits & 1))
        else:
            return False
        return True

    def take_alike(self, data: bytes, first: int, content: int, end: int) -> int:  # noqa: ARG002 - of Sink
        """Take nothing: one confirm tells of many publishes; see ``Sink``."""
        return end

    def _confirm(self, last: int, *, multiple: bool) -> None:
        tags: Sequence[int] = [last]
        if multiple:
            # Tags are inserted in order, so the confirmed ones come first.
            tags = []
            for tag in self._windows:
                if tag > last:
                    break
                tags.append(tag)
        for tag in tags:
            window = self._windows.pop(tag, None)
            if window is not None:
                window.left -= 1
                if window.left == 0 and not window.done.done():
                    window.done.set_result(None)

    def _refuse(self, error: UnavailableError) -> None:
        """Fail all publishes under way, because a message sent back does not say which publish it was."""
        for window in self._windows.values():
            if not window.done.done():
                window.done.set_exception(error)


@dataclass(slots=True)
class _Confirming:
    """Publishes that are confirmed together."""

    left: int
    done: asyncio.Future[None]
    since: float
