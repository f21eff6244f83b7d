"""URLs that may name several hosts, taken apart."""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

_BEGINNING: Final = re.compile(r"([a-z]+://)([^/?#]*)")
"""Scheme and authority."""


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL that may name several hosts, also by IPv6 addresses in brackets.

    ``urlsplit`` of Python with the fix of CVE-2025-0938, such as Debian's 3.11.2, accepts brackets only around the one
    host. ``hostname`` and ``port`` of the result mean nothing if there are several.

    Raises:
        ValueError: if it cannot be read.
    """
    match = _BEGINNING.match(url)
    if match is None or not {",", "["} <= set(match[2]):
        return urlsplit(url)
    return urlsplit(match[1] + url[match.end() :])._replace(netloc=match[2])
