"""The console channel: greetings as lines of text."""

import io
import os
from uuid import UUID

import pytest

from birthday.channels import Delivered, Greeting, Temporary
from birthday.channels.terminal import ConsoleChannel
from birthday.core.message import ErrorType
from tests.support.clock import ManualClock

MESSAGE_ID = UUID("0198c0de-0000-7000-8000-00000000ada1")
GREETING = Greeting(MESSAGE_ID, "ada@example.com", "Hey, Ada Lovelace it's your birthday")
LINE = "2026-03-01T09:00:00Z  ada@example.com  Hey, Ada Lovelace it's your birthday\n"


async def test_line() -> None:
    """A greeting is one line: the instant, the address, the text."""
    stream = io.StringIO()
    channel = ConsoleChannel(stream, ManualClock())

    outcomes = [await channel.send(GREETING), await channel.send(GREETING)]

    assert outcomes == [Delivered(), Delivered()]
    assert stream.getvalue() == LINE + LINE


async def test_flushed() -> None:
    """The line is out as soon as the greeting counts as delivered."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", newline="")

    await ConsoleChannel(stream, ManualClock()).send(GREETING)

    assert raw.getvalue() == LINE.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\r", r"two\nlines\r"),
        ("bell\x07 back\x08 delete\x7f null\x00", r"bell\x07 back\x08 delete\x7f null\x00"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("line\u2028separator", r"line\u2028separator"),
        ("lone \ud800 surrogate", r"lone \ud800 surrogate"),
        ("\U000e0041 tag", r"\U000e0041 tag"),
        ("Þórdís 山田 🎂", "Þórdís 山田 🎂"),
        ("Zoe\u0301", "Zoe\u0301"),
    ],
)
async def test_control_characters(text: str, shown: str) -> None:
    """What a terminal would obey, or show as nothing, is written as an escape, in text and address alike."""
    stream = io.StringIO()

    await ConsoleChannel(stream, ManualClock()).send(Greeting(MESSAGE_ID, text, text))

    assert stream.getvalue() == f"2026-03-01T09:00:00Z  {shown}  {shown}\n"


async def test_narrow_encoding() -> None:
    """What the stream's encoding cannot say is written as an escape, and the greeting is delivered all the same."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1", newline="")

    outcome = await ConsoleChannel(stream, ManualClock()).send(Greeting(MESSAGE_ID, "þ@example.com", "Zoë 🎂"))

    assert outcome == Delivered()
    assert raw.getvalue() == b"2026-03-01T09:00:00Z  \xfe@example.com  Zo\xeb \\U0001f382\n"


async def test_broken_pipe() -> None:
    """When nobody reads any more, the greeting may be sent again later."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(os.dup(writing), "wb", buffering=0) as raw:
        stream = io.TextIOWrapper(raw, write_through=True)

        outcome = await ConsoleChannel(stream, ManualClock()).send(GREETING)

        assert outcome == Temporary(
            ErrorType.EXTERNAL_API_ERROR, "cannot write to the console: [Errno 32] Broken pipe", None, outage=True
        )
    os.close(writing)


async def test_closed_stream() -> None:
    """When the stream has been closed, the greeting may be sent again later."""
    stream = io.StringIO()
    stream.close()

    outcome = await ConsoleChannel(stream, ManualClock()).send(GREETING)

    assert isinstance(outcome, Temporary)
    assert outcome.outage


async def test_check_and_close() -> None:
    """There is no other side to check, and closing leaves the stream open."""
    stream = io.StringIO()
    channel = ConsoleChannel(stream, ManualClock())

    await channel.check()
    await channel.close()

    assert not stream.closed
