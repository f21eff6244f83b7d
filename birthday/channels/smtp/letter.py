"""The e-mail that a greeting becomes: its headers, its text, and the same in HTML if there is any (RFC 5322, MIME)."""

import re
import unicodedata
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime
from typing import Final

from yarl import URL

from birthday.channels.outcomes import Greeting

_SUBJECT_CHARACTERS: Final = 200
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_LEADING_DOT: Final = re.compile(rb"^\.", re.MULTILINE)

# Texts are encoded as quoted-printable or base64 where they have long lines or characters beyond ASCII, so no server
# needs an extension for them.
_ASCII: Final = SMTP.clone(cte_type="7bit")
_UTF8: Final = SMTPUTF8.clone(cte_type="7bit")


def compose(greeting: Greeting, sender: Address, now: datetime) -> bytes:
    """Return the e-mail as DATA carries it: lines that end in CRLF, with dots doubled, and without the final dot.

    Every attempt has the same Message-ID, so that a receiver can recognise a second copy.
    """
    message = EmailMessage(_ASCII if greeting.email.isascii() else _UTF8)
    message["From"] = sender
    message["To"] = greeting.email
    message["Subject"] = _one_line(greeting.subject or greeting.text.strip().partition("\n")[0])
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{greeting.message_id}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(greeting.text)
    if greeting.html is not None:
        message.add_alternative(greeting.html, subtype="html")
    lines = _LINE_END.sub(b"\r\n", _unsubscribing(greeting) + message.as_bytes())
    return _LEADING_DOT.sub(b"..", lines if lines.endswith(b"\r\n") else lines + b"\r\n")


def _unsubscribing(greeting: Greeting) -> bytes:
    """Return the headers for unsubscribing by one click (RFC 8058).

    They are no part of the message above, which would encode a long URL as words (RFC 2047). No reader expects that.
    """
    if greeting.unsubscribe_url is None:
        return b""
    url = str(URL(greeting.unsubscribe_url))
    return f"List-Unsubscribe: <{url}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n".encode("ascii")


def _one_line(text: str) -> str:
    """Return ``text`` without line ends and control characters, which could begin another header."""
    words = " ".join(text.split())
    return "".join(one for one in words if unicodedata.category(one) != "Cc")[:_SUBJECT_CHARACTERS]
