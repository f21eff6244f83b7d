"""Dead letters as they are in the queue: those that are no message of ours, and an archive of all that match."""

from collections import Counter
from contextlib import aclosing
from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.http.console.failed import PATH, choose, count
from birthday.http.console.fields import address
from birthday.http.console.rendering import page
from birthday.http.console.view import View
from birthday.http.context import CONTEXT
from birthday.http.streaming import ClientError, Stream
from birthday.operations.dead_letters import letters as dead
from birthday.operations.dead_letters.letters import Found, Kind
from birthday.operations.dead_letters.listing import browse_dead
from birthday.operations.dead_letters.records import archived, encode, excerpt
from birthday.store.causes import MOST

BROWSED: Final = 1000
"""How many dead letters a page looks at: RabbitMQ must hand out each of them."""


async def letters(request: web.Request) -> web.StreamResponse:
    """Show the first dead letters that are no message of ours, and count the others of the first ones."""
    context = request.app[CONTEXT]
    kinds, strangers = Counter[Kind](), list[Found]()
    depth = (await context.broker.stats()).dead
    async with aclosing(browse_dead(context.pool, context.broker)) as browsing:
        async for some in browsing:
            kinds.update(found.kind for found in some)
            strangers += [found for found in some if found.message is None]
            if kinds.total() >= BROWSED:
                break
    rows = [(found, excerpt(found.letter.body)) for found in strangers]
    return page(request, "letters.html", title="Dead letters", depth=depth, kinds=kinds, strangers=rows, path=PATH)


async def archive(request: web.Request) -> web.StreamResponse:
    """Show how dead letters are kept: they are downloaded, and then dropped."""
    choice = choose(request, request.query)
    return page(
        request,
        "archive.html",
        title="Archive dead letters",
        total=(await count(request, choice)).messages,
        most=MOST,
        depth=(await request.app[CONTEXT].broker.stats()).dead,
        fields=choice.fixed,
        download=address(f"{PATH}/archive.ndjson", choice.fixed),
        drop=f"{PATH}/drop",
        back=choice.page,
    )


async def download(request: web.Request) -> web.StreamResponse:
    """Send the dead letters that match, whole, with the rows of their messages, as lines of JSON. Nothing changes."""
    context = request.app[CONTEXT]
    choice = choose(request, request.query)
    name = f"dead-letters-{choice.asked_at:%Y-%m-%dT%H%M%SZ}.ndjson"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    async with (
        Stream(request, "application/x-ndjson", headers) as stream,
        context.sweeping,
        aclosing(browse_dead(context.pool, context.broker)) as browsing,
    ):
        try:
            async for some in browsing:
                meant = await dead.choose(context.pool, choice.wanted, some)
                await stream.write(b"".join(encode(archived(found, context.clock.now())) for found in meant))
            return await stream.end()
        except ClientError:
            return stream.break_off()


VIEWS: Final = (
    View("GET", "/failures/letters", Scope.READ, letters),
    View("GET", "/failures/archive", Scope.ADMIN, archive),
    View("GET", "/failures/archive.ndjson", Scope.ADMIN, download),
)
