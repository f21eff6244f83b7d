"""What orchestrators, load balancers and Prometheus ask every process, whatever its role."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from aiohttp import web

from birthday.config import Role
from birthday.errors import NotFoundError
from birthday.http.context import CONTEXT
from birthday.http.json_response import json_response
from birthday.http.keys import find_key
from birthday.operations.readiness import SENDING, CheckResult, Health, health_of

SCRAPED = "/metrics"
PATHS = frozenset({"/health", "/health/detailed", "/health/db", "/health/queue", "/ready", "/alive", SCRAPED})


async def health(request: web.Request) -> web.Response:
    """Report the health of the process; 503 only if it can serve nothing."""
    results = await request.app[CONTEXT].readiness.check_all()
    return _health(request, results, {name: _word(result) for name, result in results.items()})


async def health_detailed(request: web.Request) -> web.Response:
    """Report health, and the result and latency of each check. Only clients with a key see unmasked reasons."""
    results = await request.app[CONTEXT].readiness.check_all()
    return _health(request, results, {name: _details(request, result) for name, result in results.items()})


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


def _health(request: web.Request, results: Mapping[str, CheckResult], checks: Mapping[str, Any]) -> web.Response:
    context = request.app[CONTEXT]
    status = health_of(results)
    document: dict[str, Any] = {
        "status": status,
        "version": version("birthday-scheduler"),
        "roles": [role for role in Role if role in context.settings.role],
        "paused": context.pauses.paused,
        "checks": checks,
    }
    if (sending := results.get(SENDING)) and not sending.ok:
        document["reason"] = sending.reason
    return json_response(document, 503 if status is Health.UNHEALTHY else 200)


async def health_of_dependency(name: str, request: web.Request) -> web.Response:
    """Say whether a dependency can be used."""
    result = await request.app[CONTEXT].readiness.check_one(name)
    if result is None:
        raise NotFoundError(f"this process does not use a {name}")
    return json_response(_details(request, result), 200 if result.ok else 503)


def _word(result: CheckResult) -> Health:
    return Health.HEALTHY if result.ok else Health.UNHEALTHY


def _details(request: web.Request, result: CheckResult) -> dict[str, Any]:
    context = request.app[CONTEXT]
    key = find_key(context.keys, request, context.clock.now())
    reason = result.reason if key else context.hide_names(result.reason)
    return {"status": _word(result), "latencySeconds": round(result.latency_seconds, 6), "reason": reason}
