"""Creating and reading a user, the requests that come by the thousand, skip aiohttp's search for a route.

Otherwise they go the same way, through all middlewares. Any other request is left to aiohttp.
"""

from functools import partial
from typing import Final

from aiohttp import hdrs, web

from birthday.http.ids import UUID_PATTERN
from birthday.http.route import Handler

_USERS: Final = "/users"
_USER: Final = "/users/"


def with_shortcuts(app: web.Application, handle: Handler) -> Handler:
    """Return ``handle``, which answers any request of ``app``, with shortcuts to create and to read a user."""
    routes = {(one.method, one.resource.canonical): one for one in app.router.routes() if one.resource is not None}
    creating, reading = routes.get((hdrs.METH_POST, _USERS)), routes.get((hdrs.METH_GET, f"{_USER}{{id}}"))
    if creating is None or reading is None:
        return handle
    create, read = _through(app, creating), _through(app, reading)

    async def shorten(request: web.Request) -> web.StreamResponse:
        method, path = request.method, request.rel_url.raw_path
        if hdrs.EXPECT in request.headers:
            return await handle(request)
        if method == hdrs.METH_POST and path == _USERS:
            _note(app, request, web.UrlMappingMatchInfo({}, creating))
            return await create(request)
        if method == hdrs.METH_GET and path.startswith(_USER) and UUID_PATTERN.fullmatch(path, len(_USER)):
            _note(app, request, web.UrlMappingMatchInfo({"id": path[len(_USER) :]}, reading))
            return await read(request)
        return await handle(request)

    return shorten


def _through(app: web.Application, route: web.AbstractRoute) -> Handler:
    """Return the handler of a route behind all middlewares."""
    handler = route.handler
    for middleware in reversed(app.middlewares):
        handler = partial(middleware, handler=handler)
    return handler


def _note(app: web.Application, request: web.Request, found: web.UrlMappingMatchInfo) -> None:
    found.add_app(app)
    request._match_info = found  # noqa: SLF001 - what aiohttp's own search does
