"""Which requests are spared aiohttp's search for a route."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler, Middleware

from birthday.http.api import users
from birthday.http.shortcuts import with_shortcuts

USER = "/users/01a22714-514f-7bef-b392-a560ede3cb8f"


async def _search(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="searched")


async def _answer(request: web.Request) -> web.StreamResponse:
    return web.Response(text=str(dict(request.match_info)))


@asynccontextmanager
async def serving(*middlewares: Middleware) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    """Serve the routes of users behind ``middlewares`` on a free port, with shortcuts past ``_search``."""
    app = web.Application(middlewares=middlewares)
    app.add_routes([web.route(route.method, route.path, _answer) for route in users.ROUTES])
    async with TestClient(TestServer(app)) as client:
        server: web.Server = cast("Any", client.server.runner).server
        server.request_handler = cast("Any", with_shortcuts(app, _search))
        yield client


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("POST", "/users", "{}"),
        ("GET", USER, f"{{'id': '{USER.removeprefix('/users/')}'}}"),
        ("GET", "/users", "searched"),
        ("GET", "/users/export", "searched"),
        ("GET", f"{USER}/explain", "searched"),
        ("GET", f"{USER}%20", "searched"),
        ("PUT", USER, "searched"),
    ],
)
async def test_only_to_create_and_to_read_a_user_takes_no_search(method: str, path: str, answer: str) -> None:
    """Their handlers are called with the parts of the path; the search is left to aiohttp for all others."""
    async with serving() as client, client.request(method, path) as response:
        assert await response.text() == answer


async def test_a_shortcut_goes_through_all_middlewares() -> None:
    """They are called in their order, and see the route, by which the metrics name the request."""
    seen = []

    def middleware(name: str) -> Middleware:
        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            seen.append((name, resource and resource.canonical))
            return await handler(request)

        return note

    async with serving(middleware("outer"), middleware("inner")) as client, client.get(USER) as response:
        assert response.status == 200

    assert seen == [("outer", "/users/{id}"), ("inner", "/users/{id}")]


async def test_a_client_that_expects_an_interim_answer_gets_it_from_aiohttp() -> None:
    """A shortcut would not send 100 Continue."""
    async with serving() as client, client.post("/users", expect100=True) as response:
        assert await response.text() == "searched"
