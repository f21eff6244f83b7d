"""A mail server to test against: it records every e-mail, and fails as it is told, at any step."""

import asyncio
from base64 import b64decode
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from enum import Enum
from ssl import SSLContext
from typing import Self

import pytest

USER, PASSWORD = "ada@example.com", "s3c/ret"


class Fault(Enum):
    """How an answer fails to arrive: the connection closes instead, or nothing comes."""

    CLOSE = "close"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Mail:
    """An accepted e-mail, as it came in; ``connection`` tells one connection from another."""

    connection: int
    sender: str
    recipient: str
    data: bytes

    @property
    def message(self) -> EmailMessage:
        """The e-mail, parsed."""
        return message_from_bytes(self.data, policy=policy.SMTPUTF8)

    @property
    def text(self) -> str:
        """The plain text of the e-mail."""
        part = self.message.get_body(("plain",))
        return "" if part is None else part.get_content().replace("\r\n", "\n")


class MailServer:
    """The server, on a port of the loopback interface. After ``stop`` it can be started again on the same port.

    Steps are ``CONNECT``, the commands, ``CONTENT`` (between 354 and the final dot) and ``DOT``.
    """

    def __init__(
        self,
        tls: SSLContext | None = None,
        *,
        implicit: bool = False,
        offers: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SMTPUTF8", "AUTH PLAIN LOGIN"),
    ) -> None:
        """Offer STARTTLS with ``tls``, or expect TLS from the beginning if ``implicit``."""
        self.mails: list[Mail] = []
        self.commands: list[tuple[int, str]] = []
        self.connections = 0
        self.held = 0
        """How many e-mails have come in while ``answering`` was not set, and have no answer yet."""
        self.answering = asyncio.Event()
        self.answering.set()
        self._tls, self._implicit, self._offers = tls, implicit, offers
        self._answers: defaultdict[str, deque[str | Fault]] = defaultdict(deque)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """SMTP_URL for this server, without a login."""
        plain = "" if self._tls else "?starttls=false"
        return f"smtp{'s' if self._implicit else ''}://{self.host}{plain}"

    @property
    def host(self) -> str:
        """Name and port."""
        return f"localhost:{self._port}"

    def answer(self, step: str, *answers: str | Fault) -> None:
        """Give these answers the next times that ``step`` is reached."""
        self._answers[step].extend(answers)

    async def start(self) -> Self:
        """Start to listen."""
        tls = self._tls if self._implicit else None
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self._port, ssl=tls)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        """Start."""
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await _Talk(self, self.connections, reader, writer).run()
        finally:
            self._talks.discard(task)
            writer.transport.abort()

    def next_answer(self, step: str, otherwise: str) -> str | Fault:
        """Return what to answer now."""
        return self._answers[step].popleft() if self._answers[step] else otherwise

    def extensions(self, *, encrypted: bool) -> list[str]:
        """Return what EHLO tells of."""
        return [*self._offers, *(["STARTTLS"] if self._tls and not encrypted else [])]

    @property
    def tls(self) -> SSLContext | None:
        """The certificate."""
        return self._tls


class _Talk:
    def __init__(
        self, server: MailServer, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server, self._number, self._reader, self._writer = server, number, reader, writer
        self._sender = self._recipient = ""

    async def run(self) -> None:
        await self._say("CONNECT", "220 mail.example.com ESMTP")
        while True:
            line = (await self._reader.readuntil(b"\r\n")).decode().rstrip("\r\n")
            self._server.commands.append((self._number, line))
            step = line.partition(" ")[0].upper()
            if step == "QUIT":
                return
            await self._obey(step, line)

    async def _obey(self, step: str, line: str) -> None:
        match step:
            case "EHLO":
                await self._say(step, self._extensions())
            case "STARTTLS":
                await self._encrypt(step)
            case "AUTH":
                given = b64decode(line.rpartition(" ")[2]).decode().split("\0")[-2:]
                right = given == [USER, PASSWORD]
                await self._say(step, "235 2.7.0 welcome" if right else "535 5.7.8 wrong user or password")
            case "MAIL":
                if await self._say(step, "503 5.5.1 nested MAIL" if self._sender else "250 2.1.0 Ok"):
                    self._sender = line.partition("<")[2].partition(">")[0]
            case "RCPT":
                await self._say(step, "250 2.1.5 Ok")
                self._recipient = line.partition(":<")[2].removesuffix(">")
            case "DATA":
                if await self._say(step, "354 go on"):
                    await self._take()
            case "RSET":
                self._sender = ""
                await self._say(step, "250 2.0.0 Ok")
            case _:
                await self._say(step, "502 5.5.2 unknown command")

    def _extensions(self) -> str:
        encrypted = self._writer.get_extra_info("sslcontext") is not None
        lines = ["mail.example.com", *self._server.extensions(encrypted=encrypted)]
        return "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])

    async def _encrypt(self, step: str) -> None:
        if await self._say(step, "220 2.0.0 go ahead"):
            assert self._server.tls is not None
            await self._writer.start_tls(self._server.tls)

    async def _take(self) -> None:
        if await self._say("CONTENT", ""):
            data = await self._reader.readuntil(b"\r\n.\r\n")
            whole = data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
            mail = Mail(self._number, self._sender, self._recipient, whole)
            self._server.held += 1
            await self._server.answering.wait()
            self._server.held -= 1
            if await self._say("DOT", "250 2.0.0 Ok: queued", accepted=mail):
                self._sender = ""

    async def _say(self, step: str, otherwise: str, accepted: Mail | None = None) -> bool:
        """Answer, and say whether that was the ordinary answer. An answer that does not arrive was still decided."""
        answer = self._server.next_answer(step, otherwise)
        if accepted is not None and (isinstance(answer, Fault) or answer.startswith("2")):
            self._server.mails.append(accepted)
        if answer is Fault.SILENCE:
            await asyncio.Event().wait()
        if isinstance(answer, Fault):
            raise ConnectionResetError
        if answer:
            self._writer.write(f"{answer}\r\n".encode())
            await self._writer.drain()
        if answer.startswith("421"):
            raise ConnectionResetError
        return answer == otherwise


@pytest.fixture
async def mail_server() -> AsyncIterator[MailServer]:
    """A mail server without encryption that accepts everything until it is told otherwise."""
    async with MailServer() as server:
        yield server
