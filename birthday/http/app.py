"""The application: which function answers which path. All routes are in this module."""

from functools import partial
from typing import Final

import orjson
from aiohttp import web

from birthday.config import Role, Scope
from birthday.http.api import docs, messages, suppressions, templates, users
from birthday.http.api.openapi import document
from birthday.http.api.requests import MAX_BODY_BYTES
from birthday.http.api.unsubscribe import UnsubscribePages
from birthday.http.coalescer import Coalescer
from birthday.http.context import CONTEXT, CREATION, IS_TRUSTED, READING, REFUSALS, ApiContext
from birthday.http.middleware.client import trust_in
from birthday.http.middleware.cors import allow_origins
from birthday.http.middleware.guard import Guard
from birthday.http.middleware.observe import expect_failures, observing, refusals
from birthday.http.middleware.problems import problems
from birthday.http.middleware.rates import show_rates
from birthday.http.middleware.trace import traced
from birthday.http.probes import health as probes
from birthday.operations.readiness import DATABASE, QUEUE

TEMPLATE: Final = "/templates/{type}/{locale}"


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
    app.add_routes(_probe_routes())
    if Role.API in context.settings.role:
        app[CREATION] = Coalescer(partial(users.create_all, context))
        app[READING] = Coalescer(partial(users.read_all, context))
        app.add_routes(_resource_routes(guard))
        app.add_routes(_document_routes(context))
        app.add_routes(UnsubscribePages(context).routes())
    app[IS_TRUSTED] = trust_in(context.settings.trusted_proxies)
    app[REFUSALS] = refusals(context.metrics)
    expect_failures(app, context.metrics)
    return app


def _probe_routes() -> list[web.RouteDef]:
    return [
        web.get("/health", probes.health),
        web.get("/health/detailed", probes.health_detailed),
        web.get("/health/db", partial(probes.health_of_dependency, DATABASE)),
        web.get("/health/queue", partial(probes.health_of_dependency, QUEUE)),
        web.get("/ready", probes.ready),
        web.get("/alive", probes.alive),
        web.get(probes.SCRAPED, probes.metrics),
    ]


def _resource_routes(guard: Guard) -> list[web.RouteDef]:
    return [
        web.post("/users", guard.protect(Scope.WRITE, users.create)),
        web.get("/users", guard.protect(Scope.READ, users.list_page)),
        web.get("/users/{id}", guard.protect(Scope.READ, users.read)),
        web.put("/users/{id}", guard.protect(Scope.WRITE, users.replace)),
        web.patch("/users/{id}", guard.protect(Scope.WRITE, users.patch)),
        web.delete("/users/{id}", guard.protect(Scope.WRITE, users.delete)),
        web.get("/users/{id}/messages", guard.protect(Scope.READ, messages.list_page_of_user)),
        web.get("/users/{id}/explain", guard.protect(Scope.READ, users.explain)),
        web.put("/users/{id}/suppression", guard.protect(Scope.WRITE, suppressions.put)),
        web.delete("/users/{id}/suppression", guard.protect(Scope.WRITE, suppressions.delete)),
        web.get("/suppressions", guard.protect(Scope.READ, suppressions.list_page)),
        web.get("/messages", guard.protect(Scope.READ, messages.list_page)),
        web.post("/messages/retry", guard.protect(Scope.ADMIN, messages.retry_many)),
        # Not 'retry': otherwise a GET of the path above would match here, and the answer would be 404 instead of 405.
        web.get("/messages/{id:(?!retry$)[^/]+}", guard.protect(Scope.READ, messages.read)),
        web.post("/messages/{id}/retry", guard.protect(Scope.ADMIN, messages.retry)),
        web.get("/templates", guard.protect(Scope.ADMIN, templates.list_all)),
        web.get(TEMPLATE, guard.protect(Scope.ADMIN, templates.read)),
        web.put(TEMPLATE, guard.protect(Scope.ADMIN, templates.publish)),
        web.get(f"{TEMPLATE}/versions", guard.protect(Scope.ADMIN, templates.list_page)),
        web.post(f"{TEMPLATE}/preview", guard.protect(Scope.ADMIN, templates.try_out)),
        web.post(f"{TEMPLATE}/test", guard.protect(Scope.ADMIN, templates.send)),
        web.post(f"{TEMPLATE}/activate", guard.protect(Scope.ADMIN, templates.activate)),
    ]


def _document_routes(context: ApiContext) -> list[web.RouteDef]:
    described = document(context.clock.now().year - 1, with_keys=bool(context.settings.api_keys))
    body = orjson.dumps(described)

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return [web.get("/openapi.json", openapi), *docs.routes(described)]
