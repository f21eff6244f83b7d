"""Pages of other origins, such as a web application that calls the API: none may, except those in CORS_ORIGINS.

No answer allows cookies or ``*``: a client of the API says who it is with its key, which only its own code knows.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from birthday.http.middleware.observe import METHODS
from birthday.http.route import Handler

_EXPOSED: Final = ", ".join(
    (
        *("ETag", "Idempotent-Replayed", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After"),
        *("WWW-Authenticate", "X-Request-ID", "X-Unchanged"),
    )
)
"""What a script may read besides the few headers that every script may."""

_PREFLIGHT: Final = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(sorted(METHODS)),
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: (
        "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, traceparent, tracestate, X-API-Key, "
        "X-Request-ID"
    ),
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}


def allow_origins(app: web.Application, origins: Sequence[str]) -> None:
    """Let scripts of pages of these origins use ``app``."""

    async def admit(request: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin in origins:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED

    @web.middleware
    async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        if (
            request.method == hdrs.METH_OPTIONS
            and headers.get(hdrs.ORIGIN) in origins
            and hdrs.ACCESS_CONTROL_REQUEST_METHOD in headers
        ):
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)
        return await handler(request)

    app.middlewares.append(preflight)
    app.on_response_prepare.append(admit)
