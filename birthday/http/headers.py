"""The headers that every answer has, whoever gives it."""

from typing import Final

import structlog
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


def complete(response: web.StreamResponse) -> None:
    """Add the id of the request that is being answered, and what protects the answer.

    Answers of the middlewares are completed by ``observing``. A handler that streams calls this before it starts.
    """
    headers = response.headers
    headers[REQUEST_ID] = structlog.contextvars.get_contextvars()["request_id"]
    for name, value in PROTECTION:
        headers.setdefault(name, value)
