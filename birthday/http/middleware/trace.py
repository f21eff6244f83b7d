"""A span for each request to a resource. Probes have none, because they come every few seconds and change nothing."""

from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Middleware

from birthday.http.context import SUBJECT
from birthday.http.middleware.observe import METHODS, template
from birthday.http.probes import health as probes
from birthday.http.route import Handler
from birthday.telemetry.tracing import Tracing


def traced(tracing: Tracing) -> Middleware:
    """Return the middleware that traces each request, as part of the client's trace if it sends one."""

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = template(request)
        if route in probes.PATHS:
            return await handler(request)
        method = request.method if request.method in METHODS else None
        with tracing.serve(method, route, request.scheme, request.headers) as span:
            response = await handler(request)
            failed = response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            span.answer(
                response.status,
                str(response.status) if failed else None,
                request_id=response.headers["X-Request-ID"],
                subject=request.get(SUBJECT),
            )
        return response

    return trace
