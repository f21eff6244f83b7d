"""The overview: is all well, and what wants attention?"""

from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.http.console.rendering import page
from birthday.http.console.view import View
from birthday.http.context import CONTEXT
from birthday.operations.status import read_status


async def overview(request: web.Request) -> web.StreamResponse:
    """Show the state of the whole installation."""
    context = request.app[CONTEXT]
    status = await read_status(context.pool, context.settings.rules, context.clock.now())
    return page(
        request,
        "overview.html",
        title="Overview",
        concerns=(),
        overdue=status.overdue,
        overdue_seconds=status.overdue.oldest_seconds(status.at),
        failed=sum(status.failed.values()),
        peak=status.peak,
        running=status.running,
    )


VIEWS: Final = (View("GET", "", Scope.READ, overview, nav="Overview"),)
