"""What operators see of each request: its id, one log line, and metrics by route template.

The line is ``info`` for changes and refusals, ``warning`` for our own failures, and ``debug`` for the rest, because
metrics are enough for successful reads and probes. It names routes and ids, never what a client wrote.
"""

import logging
import re
import time
from functools import cache
from http import HTTPStatus
from typing import Final, cast

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from birthday.http.context import CALL_ID, CLIENT, PEER, SUBJECT, ApiContext, Report, Served, new_request_id
from birthday.http.headers import PROTECTION, REQUEST_ID, complete
from birthday.http.middleware.client import client_address, trust_in
from birthday.http.middleware.packing import MIN_BYTES, pack
from birthday.http.middleware.problems import locate
from birthday.http.probes import health as probes
from birthday.http.route import Handler
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

_READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
METHODS = _READING | {hdrs.METH_POST, hdrs.METH_PUT, hdrs.METH_PATCH, hdrs.METH_DELETE}
_REFUSED: Final = HTTPStatus.BAD_REQUEST.value
_FAILED: Final = HTTPStatus.INTERNAL_SERVER_ERROR.value
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,100}")

UNKNOWN_PATH = "unknown"
OTHER_METHOD = "OTHER"


def expect_failures(app: web.Application, metrics: Metrics) -> None:
    """Create the series that count the failures of each route, with the value 0.

    ``rate()`` ignores the first value of a series, so the first failure would not show if it created the series. There
    are only two such series for each method and route.
    """
    for route in app.router.routes():
        if route.resource is not None:
            for status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE):
                metrics.api_requests.labels(route.method, route.resource.canonical, status.value)


def observing(context: ApiContext) -> Middleware:
    """Return the middleware that gives a request an id, passes it on, and reports the outcome."""
    # These caches stay small: their keys are methods, routes and statuses.
    counter_of = cache(context.metrics.api_requests.labels)
    histogram_of = cache(context.metrics.api_response_time.labels)
    keys = context.keys
    proxied = bool(context.settings.trusted_proxies)
    is_trusted = trust_in(context.settings.trusted_proxies)
    address = context.address
    # A line that is not shown would cost as much as a twentieth of a read.
    shows_all = log.is_enabled_for(logging.DEBUG)
    active = 0
    context.metrics.api_active_requests.set_function(lambda: active)

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal active
        request[CALL_ID] = request_id = _request_id(request)
        started = time.perf_counter()
        # Needs no unbinding: each request binds its own, also if its task is that of the connection.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        peer = request.remote
        if proxied:
            request[PEER] = peer = client_address(request, is_trusted)
        path = template(request) or UNKNOWN_PATH
        # A scrape that counted itself would never show an idle process.
        counted = path != probes.SCRAPED
        active += counted
        try:
            response = await handler(request)
            body = getattr(response, "body", None)
            if isinstance(body, bytes) and len(body) >= MIN_BYTES:
                await pack(request, cast("web.Response", response))
        finally:
            active -= counted
        if address and response.status >= _REFUSED:
            locate(response, address)
        seconds = time.perf_counter() - started
        complete(response, request_id)
        if context.readiness.draining or cast("Served", request.protocol).is_last:
            response.force_close()
        method = request.method if request.method in METHODS else OTHER_METHOD
        counter_of(method, path, response.status).inc()
        histogram_of(method, path).observe(seconds)
        if path not in probes.PATHS:
            context.score.count(response.status, seconds)
        if shows_all or method not in _READING or response.status >= _REFUSED:
            # Looking up a missing CLIENT costs more than all other fields of the log line.
            client = request.get(CLIENT) if keys.required else None
            _log_line(request, method, path, response.status, seconds, client or peer)
        return response

    return observe


def refusals(metrics: Metrics, address: str) -> Report:
    """Return a function that counts and logs a refusal that no middleware has seen, and completes the answer."""

    def report(answer: web.Response, request_id: str, reason: str, client: str) -> None:
        locate(answer, address)
        answer.headers.extend([(REQUEST_ID, request_id), *PROTECTION])
        metrics.api_requests.labels(OTHER_METHOD, UNKNOWN_PATH, answer.status).inc()
        log.info(
            "http.request",
            request_id=request_id,
            method=OTHER_METHOD,
            path=UNKNOWN_PATH,
            status=answer.status,
            reason=reason,
            client=client,
        )

    return report


def _request_id(request: web.Request) -> str:
    given = request.headers.get(REQUEST_ID)
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return new_request_id()


def template(request: web.Request) -> str | None:
    """Return the path template of the route, None if no route matches."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else None


def _log_line(request: web.Request, method: str, path: str, status: int, seconds: float, client: str | None) -> None:
    if status >= _FAILED:
        write = log.warning
    elif status >= _REFUSED or method not in _READING:
        write = log.info
    else:
        write = log.debug
    write(
        "http.request",
        method=method,
        path=path,
        subject=request.get(SUBJECT),
        status=status,
        duration_seconds=round(seconds, 6),
        client=client,
    )
