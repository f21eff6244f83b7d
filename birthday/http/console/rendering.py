"""Renders pages: the environment of the templates, what each page has, and its headers."""

from functools import cache, partial
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from aiohttp import hdrs, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from birthday.config import Scope
from birthday.errors import BirthdayError, UnavailableError
from birthday.http.console.assets import asset
from birthday.http.console.formats import FILTERS
from birthday.http.console.view import CONSOLE, ROOT, VISITOR, can, is_refresh, now

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    # With no-referrer, browsers do not say where a form comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every page, besides those of every answer."""

NOTICE: Final = "birthday_notice"
"""The cookie with what the next page tells once, such as the result of a change; also the purpose of its signature."""
DONE: Final = "done"
"""The parameter of an address that has the same, where an answer had begun and could set no cookie."""


def page(
    request: web.Request, template: str, *, title: str, status: HTTPStatus = HTTPStatus.OK, **values: object
) -> web.Response:
    """Return a page: a template that extends ``layout.html``, with ``values`` and what ``render`` adds."""
    notice = None if is_refresh(request) else _read_notice(request)
    text = render(request, template, title=title, notice=notice, **values)
    response = web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)
    if notice is not None:
        response.del_cookie(NOTICE, path=ROOT)
    return response


def render(request: web.Request, template: str, **values: object) -> str:
    """Return a template as text.

    Every template also has ``now``, ``visitor`` (None if nobody has signed in), ``can(scope)``, ``asset(name)``,
    ``root`` (the address of the overview), and ``pages``, the addresses of all pages.
    """
    visitor = request.get(VISITOR)
    console = request.app[CONSOLE]
    nav = [(view.nav, ROOT + view.path) for view in console.nav if can(request, view.scope)]
    # The overview is the root of all other pages, so it is the current one only at its own address.
    current = [
        path for _, path in nav if request.path == path or (path != ROOT and request.path.startswith(f"{path}/"))
    ]
    common = {
        "asset": asset,
        "can": partial(_can, request),
        "current": max(current, key=len, default=None),
        "nav": nav,
        "notice": None,
        "now": now(request),
        "pages": console.pages,
        "root": ROOT,
        "shows_persons": can(request, Scope.WRITE),
        "visitor": visitor,
    }
    return _environment().get_template(template).render({**common, **values})


def see_other(location: str) -> web.Response:
    """Return the answer that makes a browser GET ``location``, an address of the console."""
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={hdrs.LOCATION: location})


def _can(request: web.Request, scope: str) -> bool:
    return can(request, Scope(scope))


def _read_notice(request: web.Request) -> str | None:
    token = request.cookies.get(NOTICE) or request.query.get(DONE)
    notice = request.app[CONSOLE].tokens.read(NOTICE, token) if token else None
    return notice if isinstance(notice, str) else None


@cache
def _environment() -> Environment:
    """Return what compiles the templates: each of them once for the process, at its first use."""
    made = Environment(
        loader=FileSystemLoader(str(files(__package__) / "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= FILTERS
    return made


def explain(error: BirthdayError) -> str:
    """Return what an operator reads of an error. Addresses of what is away stand in the log only."""
    if isinstance(error, UnavailableError):
        return f"the {error.resource} cannot be used now"
    return str(error)
