"""How a page of the console is declared, and what its handler knows of its visitor."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.http.console.tokens import Tokens
from birthday.http.context import CALL_ID, CONTEXT
from birthday.http.route import Handler
from birthday.store.changes import Actor

ROOT: Final = "/console"
REFRESH: Final = "X-Refresh"
"""The header of a request that ``console.js`` sends to refresh the figures of an open page."""


@dataclass(frozen=True, slots=True)
class View:
    """One page, or one change: the ``path`` below ``ROOT``, who may use it, and its name in the navigation, if any."""

    method: str
    path: str
    scope: Scope
    handler: Handler
    nav: str | None = None


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at the console: the name of the API key, None where no key is needed, and what it may do."""

    name: str | None
    scope: Scope


@dataclass(slots=True)
class Console:
    """What the pages of one process share.

    ``nav`` has the pages of the navigation, ``pages`` the addresses of all.
    """

    nav: Sequence[View]
    pages: frozenset[str]
    tokens: Tokens
    viewed: dict[tuple[str | None, str, frozenset[str]], datetime]
    """When a visitor last saw which persons on which page, the oldest first."""


CONSOLE: web.AppKey[Console] = web.AppKey("console", Console)
VISITOR: web.RequestKey[Visitor] = web.RequestKey("visitor", Visitor)


def can(request: web.Request, scope: Scope) -> bool:
    """Say whether the visitor may do what needs ``scope``."""
    visitor = request.get(VISITOR)
    return visitor is not None and visitor.scope.includes(scope)


def actor_of(request: web.Request) -> Actor:
    """Return who sends a request, for the record of changes: ``console:<key>``, or ``console``."""
    name = request[VISITOR].name
    return Actor("console" if name is None else f"console:{name}", request[CALL_ID])


def is_refresh(request: web.Request) -> bool:
    """Say whether the script of an open page sends the request, so that nobody has done anything."""
    return REFRESH in request.headers


def now(request: web.Request) -> datetime:
    """Return the current instant."""
    return request.app[CONTEXT].clock.now()
