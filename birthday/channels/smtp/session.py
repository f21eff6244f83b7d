"""One connection to the mail server, which carries one e-mail after the other (RFC 5321).

aiosmtplib speaks the protocol. Here each command is given by itself, so that it is known how far an e-mail got.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from ssl import SSLContext
from typing import Final

from aiosmtplib import SMTP, SMTPResponse, SMTPResponseException, SMTPServerDisconnected

from birthday.channels.message_service.route import Route
from birthday.config import SmtpServer, Tls

CLOSING: Final = 421
_REFUSING: Final = range(400, 600)


class Step(StrEnum):
    """What is under way, or failed: the value is how reasons name it. Before DATA, nothing of the text is sent."""

    CONNECT = "the connection"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "the e-mail"
    """The final dot has been sent, so the server may have accepted the e-mail."""


ABOUT_EVERYBODY = frozenset({Step.CONNECT, Step.EHLO, Step.STARTTLS, Step.AUTH, Step.MAIL})
"""What the server answers to these is about no recipient."""


class NotOfferedError(Exception):
    """The server does not offer what the settings ask for."""


class Progress:
    """How far one attempt got."""

    def __init__(self) -> None:
        """Begin with the connection."""
        self.step = Step.CONNECT


class SmtpSession:
    """A connection that is open, encrypted and logged in as the settings say."""

    def __init__(self, client: SMTP) -> None:
        """Take over an open connection."""
        self.reusable = True
        self.opened_at = self.idle_since = asyncio.get_running_loop().time()
        self._client = client
        self._in_transaction = False

    @property
    def is_open(self) -> bool:
        """Whether there is still a transport to write to."""
        return self._client.is_connected

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Allow the connection to be used again only if all answers have come."""
        self.reusable = False
        try:
            yield
        except SMTPResponseException as error:
            self.reusable = CLOSING != error.code in _REFUSING
            raise
        self.reusable = True

    async def begin(self, sender: str, progress: Progress, *, utf8: bool = False) -> None:
        """Begin an e-mail, or with a connection from before, find out whether the server still answers.

        Raises:
            SMTPException: the server refuses, or is gone. The same holds for the other methods.
        """
        progress.step = Step.MAIL
        with self._exchange():
            if self._in_transaction:
                await self._client.rset()
            self._in_transaction = True
            await self._client.mail(sender, options=["SMTPUTF8", "BODY=8BITMIME"] if utf8 else [])

    async def finish(self, recipient: str, letter: bytes, progress: Progress) -> int:
        """Name the recipient, send the text, and return the status with which the server accepted it."""
        progress.step = Step.RCPT
        with self._exchange():
            await self._client.rcpt(recipient, encoding="utf-8")
            progress.step = Step.DATA
            _expect(354, await self._client.execute_command(b"DATA"))
            protocol = self._client.protocol
            if protocol is None:
                raise SMTPServerDisconnected("Connection lost")
            protocol.write(letter + b".\r\n")
            progress.step = Step.DOT
            status = _expect(250, await protocol.read_response())
        self._in_transaction = False
        return status

    async def reset(self) -> None:
        """Forget the e-mail that was begun."""
        with self._exchange():
            await self._client.rset()
        self._in_transaction = False

    def supports(self, extension: str) -> bool:
        """Say whether the server offers an extension."""
        return self._client.supports_extension(extension)

    def abort(self) -> None:
        """Close the connection, with a farewell if no answer is outstanding."""
        protocol = self._client.protocol
        if self.reusable and protocol is not None and protocol.is_connected:
            protocol.write(b"QUIT\r\n")
            self._client.close()
        elif isinstance(self._client.transport, asyncio.WriteTransport):
            self._client.transport.abort()
        self.reusable = False


def _expect(code: int, answer: SMTPResponse) -> int:
    if answer.code != code:
        raise SMTPResponseException(answer.code, answer.message)
    return code


async def open_session(server: SmtpServer, route: Route, tls: SSLContext | None, progress: Progress) -> SmtpSession:
    """Connect, encrypt and log in.

    Raises:
        UnreachableError: if the look-up of the name fails.
        OSError: if no connection can be made.
        SMTPException: if the server refuses, or breaks the connection.
        NotOfferedError: if it offers no encryption or login.
    """
    progress.step = Step.CONNECT
    wire = await route.dial()
    client = SMTP(
        hostname=server.host,
        sock=wire,
        local_hostname=_own_name(wire),
        timeout=None,
        use_tls=server.tls is Tls.IMPLICIT,
        start_tls=False,
        tls_context=tls,
    )
    try:
        await client.connect()
        progress.step = Step.EHLO
        await client.ehlo()
        if server.tls is Tls.STARTTLS:
            progress.step = Step.STARTTLS
            await _encrypt(client)
            progress.step = Step.EHLO
            await client.ehlo()
        if server.user is not None:
            progress.step = Step.AUTH
            await _log_in(client, server.user, server.password)
    except BaseException:
        client.close()
        wire.close()
        raise
    return SmtpSession(client)


async def _encrypt(client: SMTP) -> None:
    if not client.supports_extension("starttls"):
        raise NotOfferedError("it offers no STARTTLS; smtps:// or ?starttls=false in SMTP_URL may fit it")
    await client.starttls()


async def _log_in(client: SMTP, user: str, password: str) -> None:
    """Log in by one method: a second one with the same wrong password could lock the account."""
    for name, method in (("plain", client.auth_plain), ("login", client.auth_login), ("cram-md5", client.auth_crammd5)):
        if name in client.server_auth_methods:
            await method(user, password)
            return
    raise NotOfferedError("it offers no login by PLAIN, LOGIN or CRAM-MD5")


def _own_name(wire: socket.socket) -> str:
    """Return the name for EHLO: this host's if it is a full one, otherwise its address (RFC 5321, section 4.1.4)."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = wire.getsockname()[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
