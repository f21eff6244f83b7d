"""E-mail addresses: each has one spelling, so that two users with the same address are noticed.

The stored spelling is also the one that is sent and compared. The part before the @ is in NFC and keeps its case. The
domain is in its ASCII form for DNS: ``münchen.de`` is ``xn--mnchen-3ya.de`` (IDNA 2008, mapped by UTS 46). The database
compares without regard to case. DNS is not asked, because a domain that does not exist now may exist on the birthday.
"""

import re
import unicodedata
from typing import Final

import idna

from birthday.core.text import find_invisible, name_of

MAX_CHARACTERS: Final = 254
_MAX_LOCAL_BYTES: Final = 64
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"(?!..--)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# At least two labels. The last one begins with a letter, because 127.0.0.1 is not a name. All lookaheads are negative,
# because programs that generate examples from a pattern may ignore them.
PLAIN: Final = rf"^(?![^@]{{{_MAX_LOCAL_BYTES + 1}}}){_ATOM}(\.{_ATOM})*@({_LABEL}\.)+(?![0-9]){_LABEL}$"
"""The pattern of nearly all addresses: ASCII, unquoted, and stored as given."""

_PLAIN = re.compile(PLAIN, re.ASCII)
_DOT_ATOM = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_QUOTED = re.compile(r'"((?:[!#-\[\]-~]|\\[!-~])+)"')
_TOP_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


def parse_address(text: str) -> str:
    """Return an e-mail address in the spelling that is stored.

    Raises:
        ValueError: if ``text`` is not an address; the error says why, without the address itself.
    """
    if _PLAIN.fullmatch(text):
        return text
    if invisible := find_invisible(text):
        raise ValueError(f"{name_of(invisible)} in it cannot be seen")
    local, at, domain = text.rpartition("@")
    if not at:
        raise ValueError("it has no @")
    address = f"{_parse_local(local)}@{_parse_domain(domain)}"
    if len(address) > MAX_CHARACTERS:
        raise ValueError(f"with its domain as DNS writes it, it has more than {MAX_CHARACTERS} characters")
    return address


def _parse_local(local: str) -> str:
    """Return the part before the @ in NFC (RFC 5321 with RFC 6531), without quotation marks that it does not need."""
    local = unicodedata.normalize("NFC", local)
    if quoted := _QUOTED.fullmatch(local):
        bare = re.sub(r"\\(.)", r"\1", quoted[1])
        local = bare if _DOT_ATOM.fullmatch(bare) else local
    elif wrong := next((character for character in local if not _is_unquoted(character)), None):
        raise ValueError(f"{repr(wrong) if wrong.isprintable() else name_of(wrong)} may not stand before the @")
    elif not all(local.split(".")):
        raise ValueError("before the @ it has a dot too many, or nothing")
    elif any(unicodedata.category(atom[0])[0] == "M" for atom in local.split(".")):
        raise ValueError("an accent before the @ belongs to no letter")
    if len(local.encode()) > _MAX_LOCAL_BYTES:
        raise ValueError(f"before the @ it has more than {_MAX_LOCAL_BYTES} bytes")
    return local


def _is_unquoted(character: str) -> bool:
    if character.isascii():
        return character == "." or _DOT_ATOM.fullmatch(character) is not None
    return unicodedata.category(character)[0] in "LMNPS"


def _parse_domain(domain: str) -> str:
    """Return a domain in lower case and ASCII (RFC 5891)."""
    try:
        ascii_domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
    except UnicodeError as error:
        # The rest of the text quotes the domain.
        reason = re.split(" (?:in|of) '", str(error))[0]
        raise ValueError(f"its domain cannot be in DNS: {reason:.100}") from None
    *above, top = ascii_domain.split(".")
    if not above:
        raise ValueError("its domain has no dot")
    if not _TOP_LABEL.fullmatch(top):
        raise ValueError("its domain does not end in a name such as com")
    return ascii_domain
