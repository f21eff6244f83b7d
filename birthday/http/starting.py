"""What a process answers while its start waits for something that is away: it is alive, and not ready."""

from collections.abc import Callable

from aiohttp import web

from birthday.errors import UnavailableError
from birthday.http import kinds
from birthday.http.json_response import json_response
from birthday.http.middleware.problems import RETRY_AFTER_SECONDS, problem
from birthday.http.probes.health import Ready, alive
from birthday.operations.readiness import Health


def build_waiting(
    obstacle: Callable[[], UnavailableError], hide: Callable[[str | None], str | None]
) -> web.Application:
    """Return the application of a start that waits; ``obstacle`` tells for what, and ``hide`` masks names in that."""

    async def ready(_request: web.Request) -> web.Response:
        error = obstacle()
        checks = {error.resource: Health.UNHEALTHY}
        return json_response(
            Ready(status="not ready", draining=False, checks=checks, reason=hide(str(error)) or ""), 503
        )

    async def anything(_request: web.Request) -> web.Response:
        detail = f"this process is starting, and waits for the {obstacle().resource}"
        return problem(kinds.UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    app = web.Application()
    app.add_routes([web.get("/alive", alive), web.get("/ready", ready), web.route("*", "/{path:.*}", anything)])
    return app
