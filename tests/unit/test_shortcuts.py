"""Which requests are spared aiohttp's search for a route."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiohttp.typedefs import Handler, Middleware

from birthday.http.api import users
from birthday.http.shortcuts import with_shortcuts

USER = "/users/01a22714-514f-7bef-b392-a560ede3cb8f"


async def _search(_request: web.Request) -> web.StreamResponse:
    return web.Response(text="searched")


async def _answer(request: web.Request) -> web.StreamResponse:
    return web.Response(text=str(dict(request.match_info)))


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
    app = web.Application()
    app.add_routes([web.route(route.method, route.path, _answer) for route in users.ROUTES])

    response = await with_shortcuts(app, _search)(make_mocked_request(method, path))

    assert isinstance(response, web.Response)
    assert response.text == answer


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

    app = web.Application(middlewares=[middleware("outer"), middleware("inner")])
    app.add_routes([web.route(route.method, route.path, _answer) for route in users.ROUTES])

    await with_shortcuts(app, _search)(make_mocked_request("GET", USER))

    assert seen == [("outer", "/users/{id}"), ("inner", "/users/{id}")]


async def test_a_client_that_expects_an_interim_answer_gets_it_from_aiohttp() -> None:
    """A shortcut would not send 100 Continue."""
    app = web.Application()
    app.add_routes([web.route(route.method, route.path, _answer) for route in users.ROUTES])

    request = make_mocked_request("POST", "/users", headers={"Expect": "100-continue"})
    response = await with_shortcuts(app, _search)(request)

    assert isinstance(response, web.Response)
    assert response.text == "searched"
