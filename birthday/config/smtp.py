"""The mail server that SMTP_URL names, and the sender that SMTP_FROM names."""

from dataclasses import dataclass, field
from email.headerregistry import Address
from email.utils import getaddresses
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from birthday.config.urls import check_smtp_url
from birthday.core.address import parse_address

_PORT: Final = {"smtp": 587, "smtps": 465}


class Tls(Enum):
    """How a connection to the mail server is encrypted: after STARTTLS, from the beginning, or not at all."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server, and how it knows us. Without ``user`` there is no login."""

    host: str
    port: int
    tls: Tls
    user: str | None = None
    password: str = field(default="", repr=False)


def read_smtp_url(url: str) -> SmtpServer:
    """Return the server that a URL names, such as ``smtp://user:password@mail.example.com:587?starttls=false``.

    Raises:
        ValueError: if it is invalid; the text says what is accepted.
    """
    check_smtp_url(url)
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if query not in ([], [("starttls", "true")], [("starttls", "false")]) or (query and parts.scheme == "smtps"):
        raise ValueError("a URL without a query is accepted, or an smtp:// URL with ?starttls=false")
    if (parts.username is None) is not (parts.password is None):
        raise ValueError("a URL with user and password is accepted, or one without both")
    tls = Tls.IMPLICIT if parts.scheme == "smtps" else Tls.NONE if query == [("starttls", "false")] else Tls.STARTTLS
    user = None if parts.username is None else unquote(parts.username)
    port = parts.port or _PORT[parts.scheme]
    return SmtpServer(parts.hostname or "", port, tls, user, unquote(parts.password or ""))


def read_sender(text: str) -> Address:
    """Return the sender that ``hello@example.com`` or ``Example Ltd <hello@example.com>`` names.

    Raises:
        ValueError: if it names none; the text says what is accepted.
    """
    [(name, address), *others] = getaddresses([text]) or [("", "")]
    accepted = "an address such as hello@example.com or 'Example Ltd <hello@example.com>' is accepted"
    try:
        local, _, domain = parse_address(address).rpartition("@")
    except ValueError as error:
        raise ValueError(f"{accepted}: {error}") from None
    if others:
        raise ValueError(f"{accepted}: quote a name with a comma")
    if not local.isascii() or '"' in local:
        raise ValueError(f"{accepted}: before the @, plain ASCII is needed")
    return Address(name, local, domain)
