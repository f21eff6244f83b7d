"""The application: the routes that resources and probes declare, the OpenAPI document of them, and the middlewares."""

import re
from functools import cache, partial
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import hdrs, web

from birthday.config import Role
from birthday.http.api import (
    changes,
    docs,
    external_ids,
    keys,
    messages,
    occasions,
    persons,
    suppressions,
    templates,
    transfer,
    users,
)
from birthday.http.api.openapi import document
from birthday.http.api.requests import MAX_BODY_BYTES, with_input
from birthday.http.api.unsubscribe import UnsubscribePages
from birthday.http.coalescer import Coalescer
from birthday.http.console.frame import add_console
from birthday.http.context import CONTEXT, CREATION, HELD, IS_TRUSTED, READING, REFUSALS, ApiContext
from birthday.http.middleware.client import trust_in
from birthday.http.middleware.cors import allow_origins
from birthday.http.middleware.guard import Guard
from birthday.http.middleware.observe import expect_failures, observing, refusals
from birthday.http.middleware.problems import problems
from birthday.http.middleware.rates import show_rates
from birthday.http.middleware.trace import traced
from birthday.http.probes import health as probes
from birthday.http.route import Handler, Route
from birthday.store.creation import create_users

RESOURCES: Final = (
    *users.ROUTES,
    *persons.ROUTES,
    *changes.ROUTES,
    *external_ids.ROUTES,
    *transfer.ROUTES,
    *occasions.ROUTES,
    *messages.ROUTES,
    *suppressions.ROUTES,
    *templates.ROUTES,
    *keys.ROUTES,
)
"""What the role api serves."""
PROBES: Final = probes.ROUTES
"""What every process serves."""

_THIS_MACHINE: Final = re.compile(r"127\.0\.0\.1(:[0-9]{1,5})?")
"""Where the address of the API is known without PUBLIC_URL: some tools take no relative one."""


def build(context: ApiContext) -> web.Application:
    """Return the application of one process: the probes always, the resources if it has the role api."""
    tracing = [traced(context.tracing)] if context.tracing.enabled else []
    app = web.Application(middlewares=[*tracing, observing(context), problems], client_max_size=MAX_BODY_BYTES)
    app[CONTEXT] = context
    if context.settings.cors_origins:
        allow_origins(app, context.settings.cors_origins)
    if context.settings.rate_limit:
        show_rates(app, context.settings.rate_limit)
    guard = Guard(context)
    if context.settings.protect:
        app.middlewares.append(guard.locking(context.settings.protect))
    app.add_routes(_serve(route, guard) for route in PROBES)
    if Role.API in context.settings.role:
        app[CREATION] = Coalescer(partial(create_users, context.pool))
        app[HELD] = lambda user_id: persons.read_held(context, user_id)
        app[READING] = Coalescer(partial(users.read_all, context))
        app.add_routes(_serve(route, guard) for route in RESOURCES)
        app.add_routes(_document_routes(context))
        app.add_routes(UnsubscribePages(context).routes())
        shows_console = context.settings.console == "on"
        if shows_console:
            add_console(app, context, guard)
        app.add_routes([web.get("/", _lead_to("/console" if shows_console else "/docs"))])
    app[IS_TRUSTED] = trust_in(context.settings.trusted_proxies)
    app[REFUSALS] = refusals(context.metrics, context.address)
    expect_failures(app, context.metrics)
    return app


def _serve(route: Route, guard: Guard) -> web.RouteDef:
    handler = with_input(route)
    if route.repeats is not None:
        handler = route.repeats(handler)
    if route.scope is not None:
        handler = guard.protect(route.scope, handler)
    allow_head = {"allow_head": True} if route.method == "GET" else {}
    return web.route(route.method, route.path, handler, **allow_head)


def _lead_to(path: str) -> Handler:
    async def redirect(_request: web.Request) -> web.Response:
        return web.Response(status=HTTPStatus.FOUND, headers={hdrs.LOCATION: path})

    return redirect


def _document_routes(context: ApiContext) -> list[web.RouteDef]:
    server = context.address or "/"

    @cache
    def described(*, with_keys: bool) -> bytes:
        return orjson.dumps(document([*RESOURCES, *PROBES], server, with_keys=with_keys))

    async def openapi(request: web.Request) -> web.Response:
        body = described(with_keys=context.keys.required)
        if _THIS_MACHINE.fullmatch(request.host):
            body = body.replace(b'"url":"/"', f'"url":"http://{request.host}"'.encode())
        return web.Response(body=body, content_type="application/json")

    return [web.get("/openapi.json", openapi), *docs.routes()]
