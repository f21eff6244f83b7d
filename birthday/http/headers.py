"""The headers that every answer has, whoever gives it, and whether it may be packed."""

import re
from functools import lru_cache
from typing import Final

from aiohttp import hdrs, web

REQUEST_ID: Final = "X-Request-ID"

PROTECTION: Final = (
    (hdrs.SERVER, "birthday"),
    (hdrs.CACHE_CONTROL, "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of every answer, unless its handler has set another value. Pages have a policy of their own."""


_REFUSED: Final = re.compile(r"\s*q=0(\.0*)?\s*")


@lru_cache(maxsize=64)
def accepts_gzip(accepted: str) -> bool:
    """Say whether an ``Accept-Encoding`` names gzip with a weight above 0."""
    codings = (coding.partition(";") for coding in accepted.lower().split(","))
    return any(name.strip() == "gzip" and not _REFUSED.fullmatch(weight) for name, _, weight in codings)


def complete(response: web.StreamResponse, request_id: str) -> None:
    """Add the id of the request that is being answered, and what protects the answer.

    The middleware ``observing`` does so for every answer that has not been sent yet. A handler that streams must do it
    before it begins.
    """
    headers = response.headers
    headers[REQUEST_ID] = request_id
    # An answer in JSON has all of them already.
    if hdrs.SERVER not in headers:
        for name, value in PROTECTION:
            headers.setdefault(name, value)
