"""What orchestrators, load balancers and Prometheus ask every process, whatever its role."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal

import asyncpg
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from birthday.config import Role
from birthday.errors import NotFoundError, UnavailableError
from birthday.http import kinds
from birthday.http.context import CONTEXT
from birthday.http.json_response import json_response
from birthday.http.keys import find_key
from birthday.http.route import Answer, Handler, Route
from birthday.operations.readiness import (
    DATABASE,
    QUEUE,
    SENDING,
    TIME_LIMIT_SECONDS,
    CheckResult,
    Health,
    health_of,
)
from birthday.store.connection import borrow
from birthday.store.statistics import Replication, read_replication

SCRAPED = "/metrics"
PATHS = frozenset({"/health", "/health/detailed", "/health/db", "/health/queue", "/ready", "/alive", SCRAPED})

_Word = Literal["healthy", "unhealthy"]


class Dependency(BaseModel):
    """Whether a dependency can be used."""

    model_config = ConfigDict(extra="forbid")

    status: _Word
    latencySeconds: Annotated[float, Field(ge=0)]  # noqa: N815 - as JSON has it
    reason: str | None


class HealthReport(BaseModel):
    """How well a process works: degraded means that users are served, but messages may have to wait."""

    model_config = ConfigDict(extra="forbid")

    status: Health
    version: str
    roles: list[Role]
    paused: list[str] = Field(description="Message types that operators have paused.")
    checks: dict[str, _Word]
    reason: str = Field(default="", description="Why messages have to wait, if they have to.")


class DetailedHealth(HealthReport):
    """How well a process and its dependencies work."""

    checks: dict[str, Dependency]  # type: ignore[assignment]
    notices: list[str] = Field(
        description="What operators should know although this process works: processes that are silent, limits of the "
        "database that others have set or used up."
    )
    replication: Replication = Field(
        description="Whether commits wait for a replica of the database; asynchronous: a failover may forget the last."
    )


class Ready(BaseModel):
    """Whether requests should be sent here."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ready", "not ready"]
    draining: bool
    checks: dict[str, _Word]
    reason: str = Field(default="", description="What a start waits for.")


class Alive(BaseModel):
    """That the process answers."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["alive"]


async def health(request: web.Request) -> web.Response:
    """Report the health of the process; 503 only if it can serve nothing."""
    results = await request.app[CONTEXT].readiness.check_all()
    return _health(request, results, {name: _word(result) for name, result in results.items()})


async def health_detailed(request: web.Request) -> web.Response:
    """Report health, and the result and latency of each check. Only clients with a key see unmasked reasons."""
    context = request.app[CONTEXT]
    results = await context.readiness.check_all()
    replication = await _replication(context.pool) if results[DATABASE].ok else Replication.UNKNOWN
    notices = [_masked(request, text) for text in context.notices.texts]
    checks = {name: _details(request, result) for name, result in results.items()}
    return _health(request, results, checks, notices=notices, replication=replication)


async def _replication(pool: asyncpg.Pool) -> Replication:
    try:
        async with borrow(pool, TIME_LIMIT_SECONDS) as connection:
            return await read_replication(connection)
    except UnavailableError:
        return Replication.UNKNOWN


async def ready(request: web.Request) -> web.Response:
    """Say whether requests should be sent here: needed dependencies can be used, and the process is not draining."""
    readiness = request.app[CONTEXT].readiness
    results = await readiness.check_needed()
    is_ready = not readiness.draining and all(result.ok for result in results.values())
    document = {
        "status": "ready" if is_ready else "not ready",
        "draining": readiness.draining,
        "checks": {name: _word(result) for name, result in results.items()},
    }
    return json_response(document, 200 if is_ready else 503)


async def alive(_request: web.Request) -> web.Response:
    """Answer, which shows that the process is alive."""
    return json_response({"status": "alive"})


async def metrics(request: web.Request) -> web.Response:
    """Return the metrics of this process, as OpenMetrics if the client asks for that."""
    page, content_type = await request.app[CONTEXT].page.read(request.headers.get("Accept", ""))
    return web.Response(body=page, headers={"Content-Type": content_type})


def _health(
    request: web.Request, results: Mapping[str, CheckResult], checks: Mapping[str, Any], **more: object
) -> web.Response:
    context = request.app[CONTEXT]
    status = health_of(results)
    document: dict[str, Any] = {
        "status": status,
        "version": version("birthday-scheduler"),
        "roles": [role for role in Role if role in context.settings.role],
        "paused": context.pauses.paused,
        "checks": checks,
        **more,
    }
    if (sending := results.get(SENDING)) and not sending.ok:
        document["reason"] = sending.reason
    return json_response(document, 503 if status is Health.UNHEALTHY else 200)


async def _health_of_dependency(name: str, request: web.Request) -> web.Response:
    """Say whether a dependency can be used."""
    result = await request.app[CONTEXT].readiness.check_one(name)
    if result is None:
        raise NotFoundError(f"this process does not use a {name}")
    return json_response(_details(request, result), 200 if result.ok else 503)


def _word(result: CheckResult) -> Health:
    return Health.HEALTHY if result.ok else Health.UNHEALTHY


def _details(request: web.Request, result: CheckResult) -> dict[str, Any]:
    reason = _masked(request, result.reason)
    return {"status": _word(result), "latencySeconds": round(result.latency_seconds, 6), "reason": reason}


def _masked(request: web.Request, text: str | None) -> str | None:
    """Return a text without names of hosts, users and paths, unless the client has a key."""
    context = request.app[CONTEXT]
    return text if find_key(context.keys, request, context.clock.now()) else context.hide_names(text)


async def health_of_database(request: web.Request) -> web.Response:
    """Say whether the database can be used."""
    return await _health_of_dependency(DATABASE, request)


async def health_of_queue(request: web.Request) -> web.Response:
    """Say whether the queue can be used."""
    return await _health_of_dependency(QUEUE, request)


def _probe(
    path: str, handler: Handler, name: str, model: type[BaseModel], answer: str, failure: str | None = None
) -> Route:
    answers = (Answer(answer, model), *([Answer(failure, model, 503)] if failure else []))
    locked = _LOCKED if path.startswith("/health") else ()
    return Route("GET", path, None, handler, name, answers, locked)


_LOCKED: Final = (kinds.NO_KEY, kinds.UNKNOWN_KEY, kinds.ENDED_KEY)
"""The problems of what PROTECT can name."""


_METRICS: Final = Answer(
    "Prometheus text format, or OpenMetrics if asked for.", media_types=("text/plain", "application/openmetrics-text")
)

ROUTES: Final = (
    _probe("/health", health, "health", HealthReport, "It works.", "It can serve nothing."),
    _probe("/health/detailed", health_detailed, "healthDetailed", DetailedHealth, "It works.", "It can serve nothing."),
    _probe("/health/db", health_of_database, "healthDatabase", Dependency, "It works.", "It cannot be used."),
    _probe("/health/queue", health_of_queue, "healthQueue", Dependency, "It works.", "It cannot be used."),
    _probe("/ready", ready, "ready", Ready, "They should.", "They should not."),
    _probe("/alive", alive, "alive", Alive, "It is."),
    Route("GET", SCRAPED, None, metrics, "metrics", (_METRICS,), _LOCKED),
)
