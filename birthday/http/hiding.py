"""Masks hosts, users and paths in the reason why something cannot be used, for clients without a key."""

import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote

from pydantic import SecretStr

from birthday.config import Settings
from birthday.config.splitting import split_url

HIDDEN = "***"

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_PLACES = re.compile(
    r"[A-Za-z][A-Za-z+.-]*://[^\s,;)]+"  # a URL
    r"|[\w.+-]+@[\w.-]+"  # user and host
    r"|\[?(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}\]?(?::\d+)?"  # an IPv6 address
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"  # an IPv4 address
    r"|\b(?=[\w.-]*[A-Za-z])[\w-]+(?:\.[\w-]+)+(?::\d+)?\b"  # a name with dots
    r"|\b[A-Za-z][\w-]*:\d+\b"  # a name with a port
    r"|(?<![\w*])/[\w./%-]+"  # a path
)

_BETWEEN_URLS = re.compile(r",(?=[A-Za-z][A-Za-z+.-]*://)")
"""Not every comma: a URL may name several hosts."""


def hiding(settings: Settings) -> Callable[[str | None], str | None]:
    """Return a function that masks quoted text, what looks like a host, user or path, and names from the settings."""
    own = sorted(_names(settings), key=len, reverse=True)
    ours = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in own) or r"(?!)")

    @lru_cache(maxsize=256)
    def hide(text: str | None) -> str | None:
        if text is None:
            return None
        return ours.sub(HIDDEN, _PLACES.sub(HIDDEN, _QUOTED.sub(f'"{HIDDEN}"', text)))

    return hide


def _names(settings: Settings) -> set[str]:
    """Return host, user and path of every URL among the settings."""
    names: set[str] = set()
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str) or "://" not in text:
            continue
        for url in _BETWEEN_URLS.split(text):
            parts = split_url(url)
            authority, _, hosts = parts.netloc.rpartition("@")
            found = [parts.path.strip("/"), authority.partition(":")[0], *re.split(r"[,:\[\]]", hosts)]
            names.update(unquote(name) for name in found if name and not name.isdecimal())
    return names
