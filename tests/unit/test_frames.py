"""Frames taken out of an AMQP stream: what sinks get, and what is left for aiormq."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header, heartbeat

from birthday.broker.rabbitmq.frames import ConfirmSink, DeliverySink, FrameReader, encode_publishes
from birthday.errors import UnavailableError

OURS = 3
OTHER = 4
Taken = tuple[int, bool, bytes, bytes]


def marshal(frames: Sequence[frame.FrameTypes], channel: int = OURS) -> bytes:
    """Return the octets of frames on a channel."""
    return b"".join(frame.marshal(one, channel) for one in frames)


def delivery(tag: int, parts: Sequence[bytes], channel: int = OURS, *, redelivered: bool = False) -> bytes:
    """Return the octets of a delivery whose content comes in these parts."""
    properties = commands.Basic.Properties(delivery_mode=2, app_id="birthday")
    return marshal(
        [
            commands.Basic.Deliver("consumer", tag, redelivered, "exchange", "key"),
            header.ContentHeader(body_size=sum(map(len, parts)), properties=properties),
            *(body.ContentBody(part) for part in parts),
        ],
        channel,
    )


async def read_all(reader: FrameReader) -> list[frame.FrameTypes]:
    """Return the frames that are left in a stream that has ended, without the heartbeats."""
    octets = await reader.read()
    left = []
    while octets:
        size, _, one = frame.unmarshal(octets)
        left.append(one)
        octets = octets[size:]
    return [one for one in left if not isinstance(one, heartbeat.Heartbeat)]


class Deliveries:
    """A stream whose channel ``OURS`` has a sink for deliveries."""

    def __init__(self) -> None:
        """Begin with an empty stream."""
        self.taken: list[Taken] = []
        sink = DeliverySink(lambda *delivered: self.taken.append(delivered))
        self.reader = FrameReader({OURS: sink}, asyncio.get_running_loop())


async def test_a_stream_may_be_ended_twice() -> None:
    """Asyncio says so when the other side has ended it, and again when the connection is closed then."""
    reader = Deliveries().reader
    reader.feed_data(b"AMQP")
    reader.feed_eof()
    reader.feed_eof()
    assert await reader.read() == b"AMQP"


class TestDeliveries:
    """What a consumer gets."""

    async def test_delivery(self) -> None:
        """A delivery is taken with tag, redelivery and body, and its properties as they came."""
        stream = Deliveries()
        stream.reader.feed_data(delivery(7, [b"first"]) + delivery(8, [b"sec", b"ond"], redelivered=True))
        stream.reader.feed_eof()

        properties = commands.Basic.Properties(delivery_mode=2, app_id="birthday").marshal()
        assert stream.taken == [(7, False, properties, b"first"), (8, True, properties, b"second")]
        assert await read_all(stream.reader) == []

    async def test_same_length(self) -> None:
        """Deliveries of the same length keep their own tag, flag, properties and body; a broken frame is not taken."""
        stream = Deliveries()
        ours = commands.Basic.Properties(delivery_mode=2, app_id="birthday")
        others = commands.Basic.Properties(delivery_mode=2, app_id="birthdaz")
        several = delivery(5, [b"ab", b"cde"], redelivered=True) + delivery(6, [b"ab", b"fgh"])
        broken = delivery(9, [b"ninth"])[:-1] + b"\x00"
        stream.reader.feed_data(
            delivery(1, [b"first"])
            + delivery(2, [b"secnd"], redelivered=True)
            + delivery(3, [b"third"]).replace(ours.marshal(), others.marshal())
            + delivery(4, [b"forth"])
            + delivery(4, [b"other"], OTHER)
            + several
            + delivery(7, [b"sevth"])
            + delivery(8, [b"eigth"])
            + broken
        )
        stream.reader.feed_eof()

        assert stream.taken == [
            (1, False, ours.marshal(), b"first"),
            (2, True, ours.marshal(), b"secnd"),
            (3, False, others.marshal(), b"third"),
            (4, False, ours.marshal(), b"forth"),
            (5, True, ours.marshal(), b"abcde"),
            (6, False, ours.marshal(), b"abfgh"),
            (7, False, ours.marshal(), b"sevth"),
            (8, False, ours.marshal(), b"eigth"),
        ]
        octets = await stream.reader.read()
        assert octets.startswith(delivery(4, [b"other"], OTHER))
        assert b"ninth\x00" in octets

    async def test_empty_body(self) -> None:
        """A delivery without a body is complete with its header."""
        stream = Deliveries()
        stream.reader.feed_data(delivery(7, []))

        assert [(tag, content) for tag, _, _, content in stream.taken] == [(7, b"")]

    async def test_rest(self) -> None:
        """What is no delivery, and what is on another channel, is left as it came and in its order."""
        stream = Deliveries()
        others = [commands.Basic.ConsumeOk("consumer"), commands.Basic.Cancel("consumer"), commands.Channel.CloseOk()]
        stream.reader.feed_data(marshal(others[:1]) + delivery(7, [b"first"]) + marshal(others[1:]))
        stream.reader.feed_data(delivery(8, [b"second"], OTHER))
        stream.reader.feed_eof()

        left = await read_all(stream.reader)
        content = ["Basic.Deliver", "ContentHeader", "ContentBody"]
        assert [one.name for one in left] == ["Basic.ConsumeOk", "Basic.Cancel", "Channel.CloseOk", *content]
        assert [tag for tag, *_ in stream.taken] == [7]

    async def test_sign_of_life(self) -> None:
        """In place of what is taken there is a heartbeat: aiormq gives up a connection that brings it nothing."""
        stream = Deliveries()
        stream.reader.feed_data(delivery(7, [b"first"]))
        stream.reader.feed_eof()

        assert isinstance(frame.unmarshal(await stream.reader.read())[2], heartbeat.Heartbeat)

    async def test_other_protocol(self) -> None:
        """What is no frame at all reaches aiormq when the stream ends."""
        stream = Deliveries()
        stream.reader.feed_data(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        stream.reader.feed_eof()

        assert await stream.reader.read() == b"HTTP/1.1 400 Bad Request\r\n\r\n"

    @given(st.lists(st.integers(1, 60), max_size=40))
    def test_pieces(self, sizes: list[int]) -> None:
        """However the network cuts the stream, the same comes out."""
        octets = (
            delivery(1, [b"first"]) + marshal([commands.Basic.CancelOk("consumer")]) + delivery(2, [b"se", b"cond"])
        )

        async def feed() -> tuple[list[Taken], list[frame.FrameTypes]]:
            stream = Deliveries()
            rest = octets
            for size in sizes:
                stream.reader.feed_data(rest[:size])
                rest = rest[size:]
            stream.reader.feed_data(rest)
            stream.reader.feed_eof()
            return stream.taken, await read_all(stream.reader)

        taken, left = asyncio.run(feed())
        assert [(tag, content) for tag, _, _, content in taken] == [(1, b"first"), (2, b"second")]
        assert [one.name for one in left] == ["Basic.CancelOk"]


class Confirms:
    """A stream whose channel ``OURS`` has a sink for confirms."""

    def __init__(self) -> None:
        """Begin with nothing published."""
        self.sink = ConfirmSink()
        self.reader = FrameReader({OURS: self.sink}, asyncio.get_running_loop())

    def answer(self, *frames: frame.FrameTypes) -> None:
        """Let the server say something."""
        self.reader.feed_data(marshal(frames))


class TestConfirms:
    """What a publisher learns."""

    async def test_each(self) -> None:
        """A window is confirmed with the last of its messages, in whatever order they are."""
        stream = Confirms()
        window = stream.sink.expect(3)
        stream.answer(commands.Basic.Ack(2), commands.Basic.Ack(3))
        assert not window.done()

        stream.answer(commands.Basic.Ack(1))
        assert window.done()

    async def test_multiple(self) -> None:
        """One confirm may cover all up to a number, of several windows, and nothing above it."""
        stream = Confirms()
        windows = [stream.sink.expect(2), stream.sink.expect(2), stream.sink.expect(1)]
        stream.answer(commands.Basic.Ack(4, multiple=True))

        assert [window.done() for window in windows] == [True, True, False]

    async def test_refused(self) -> None:
        """A refusal fails all that waits."""
        stream = Confirms()
        windows = [stream.sink.expect(2), stream.sink.expect(1)]
        stream.answer(commands.Basic.Nack(1, requeue=False))

        for window in windows:
            with pytest.raises(UnavailableError, match="Nack"):
                await window

    async def test_sent_back(self) -> None:
        """A message that no queue takes fails all that waits, though it is confirmed; its content is not left over."""
        stream = Confirms()
        window = stream.sink.expect(1)
        returned = commands.Basic.Return(312, "NO_ROUTE", "exchange", "key")
        content = b'{"messageId":"0198c0de-0000-7000-8000-00000000ada1"}'
        stream.answer(returned, header.ContentHeader(body_size=len(content)), body.ContentBody(content))
        stream.answer(commands.Basic.Ack(1), commands.Channel.CloseOk())
        stream.reader.feed_eof()

        with pytest.raises(UnavailableError, match="NO_ROUTE"):
            await window
        assert [one.name for one in await read_all(stream.reader)] == ["Channel.CloseOk"]

    async def test_how_long(self) -> None:
        """The time without a confirm counts until the confirm comes, even if nobody waits for it any more."""
        stream = Confirms()
        assert stream.sink.unconfirmed_seconds == 0
        stream.sink.expect(1).cancel()
        async with asyncio.timeout(5):
            while stream.sink.unconfirmed_seconds == 0:
                await asyncio.sleep(0)
        stream.answer(commands.Basic.Ack(1))
        assert stream.sink.unconfirmed_seconds == 0

    async def test_given_up(self) -> None:
        """Confirms for somebody who does not wait any more are taken all the same."""
        stream = Confirms()
        stream.sink.expect(2).cancel()
        window = stream.sink.expect(1)
        stream.answer(commands.Basic.Ack(3, multiple=True))

        assert window.done()


def test_publishes() -> None:
    """What is written is what aiormq would write: method, header and body for each message."""
    method = commands.Basic.Publish(exchange="exchange", routing_key="key", mandatory=True)
    properties = commands.Basic.Properties(delivery_mode=2, app_id="birthday")
    bodies = [b"first", b"second"]

    octets = encode_publishes(OURS, method.marshal(), [(properties.marshal(), one) for one in bodies])

    assert octets == b"".join(
        marshal([method, header.ContentHeader(body_size=len(one), properties=properties), body.ContentBody(one)])
        for one in bodies
    )


def decode(octets: bytes) -> tuple[list[Taken], list[tuple[str, int | None]]]:
    """Return the deliveries on the channel ``OURS`` and the other frames as pamqp, the codec of aiormq, has them."""
    taken: list[Taken] = []
    left: list[tuple[str, int | None]] = []
    begun: commands.Basic.Deliver | None = None
    head, content = header.ContentHeader(), b""
    while octets:
        size, channel, one = frame.unmarshal(octets)
        octets = octets[size:]
        if channel == OURS and isinstance(one, commands.Basic.Deliver):
            begun, head, content = one, header.ContentHeader(), b""
            continue
        if channel == OURS and begun is not None:
            if isinstance(one, header.ContentHeader):
                head = one
            elif isinstance(one, body.ContentBody):
                content += one.value
            if len(content) == head.body_size:
                taken.append((begun.delivery_tag or 0, bool(begun.redelivered), head.properties.marshal(), content))
                begun = None
        elif not isinstance(one, heartbeat.Heartbeat):
            left.append((one.name, getattr(one, "delivery_tag", None)))
    return taken, left


DELIVERIES = st.builds(
    lambda tag, parts, channel, redelivered: delivery(tag, parts, channel, redelivered=redelivered),
    st.integers(1, 2**63 - 1),
    st.lists(st.binary(min_size=1, max_size=300), max_size=4),
    st.sampled_from([OURS, OTHER]),
    st.booleans(),
)
ALIKE = st.builds(
    lambda count, parts, channel: b"".join(
        delivery(tag, parts, channel, redelivered=tag > 3) for tag in range(1, count)
    ),
    st.integers(3, 6),
    st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=2),
    st.sampled_from([OURS, OTHER]),
)
OTHERS = st.sampled_from(
    [
        marshal([commands.Basic.CancelOk("consumer")]),
        marshal([commands.Channel.CloseOk()], OTHER),
        marshal([commands.Basic.Ack(3)], OTHER),
        marshal([heartbeat.Heartbeat()], 0),
    ]
)


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    """Return the octets in pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(octets[:size])
        octets = octets[size:]
    return [*pieces, octets]


@given(st.lists(DELIVERIES | ALIKE | OTHERS, max_size=12), st.lists(st.integers(1, 600), max_size=30))
def test_deliveries_are_what_the_plain_codec_decodes(items: list[bytes], sizes: list[int]) -> None:
    """Whatever the stream and wherever it is cut: our path and pamqp agree on deliveries and on what is left."""
    octets = b"".join(items)

    async def ours() -> tuple[list[Taken], list[tuple[str, int | None]]]:
        stream = Deliveries()
        for piece in cut(octets, sizes):
            stream.reader.feed_data(piece)
        stream.reader.feed_eof()
        left = await read_all(stream.reader)
        return stream.taken, [(one.name, getattr(one, "delivery_tag", None)) for one in left]

    assert asyncio.run(ours()) == decode(octets)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 25), st.booleans()), max_size=12),
    st.lists(st.integers(1, 40), max_size=20),
)
def test_confirms_are_what_the_plain_codec_decodes(
    windows: list[int], acks: list[tuple[int, bool]], sizes: list[int]
) -> None:
    """Wherever the stream is cut, a window is confirmed once pamqp has read an ack for each of its publishes."""
    octets = marshal([commands.Basic.Ack(tag, multiple) for tag, multiple in acks])

    async def ours() -> list[bool]:
        sink = ConfirmSink()
        reader = FrameReader({OURS: sink}, asyncio.get_running_loop())
        waiting = [sink.expect(count) for count in windows]
        for piece in cut(octets, sizes):
            reader.feed_data(piece)
        return [future.done() for future in waiting]

    confirmed: set[int] = set()
    rest = octets
    while rest:
        size, _, one = frame.unmarshal(rest)
        rest = rest[size:]
        assert isinstance(one, commands.Basic.Ack)
        confirmed |= set(range(1, one.delivery_tag + 1)) if one.multiple else {one.delivery_tag}
    ends = [sum(windows[: number + 1]) for number in range(len(windows))]
    expected = [set(range(end - count + 1, end + 1)) <= confirmed for end, count in zip(ends, windows, strict=True)]
    assert asyncio.run(ours()) == expected
