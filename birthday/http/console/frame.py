"""Collects the views, and decides who may use them: host, rate, session, origin and scope, in this order.

Errors become pages here, not problem documents, because a person reads them.
"""

from http import HTTPStatus
from typing import Final, Protocol
from urllib.parse import quote, unquote

import structlog
from aiohttp import hdrs, web

from birthday.config import Scope
from birthday.errors import (
    BirthdayError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    OutdatedError,
    UnavailableError,
    WrongClockError,
)
from birthday.http.console import assets
from birthday.http.console.forms import is_from_here, read_form, refuse_foreign, refuse_nul
from birthday.http.console.rendering import explain, page, see_other
from birthday.http.console.session import COOKIE, Sessions
from birthday.http.console.tokens import Tokens
from birthday.http.console.view import CONSOLE, ROOT, VISITOR, Console, View, Visitor, can
from birthday.http.console.views import (
    activity,
    audit,
    calendar,
    failures,
    imports,
    keys,
    letters,
    mending,
    message,
    overview,
    publishing,
    runbook,
    settings,
    templates,
    today,
    user,
    users,
)
from birthday.http.context import CALL_ID, CLIENT, ApiContext
from birthday.http.route import Handler
from birthday.operations.keys import KnownKey

log = structlog.get_logger()

VIEWS: Final[tuple[View, ...]] = (
    *overview.VIEWS,
    *calendar.VIEWS,
    *failures.VIEWS,
    *mending.VIEWS,
    *letters.VIEWS,
    *today.VIEWS,
    *users.VIEWS,
    *user.VIEWS,
    *message.VIEWS,
    *templates.VIEWS,
    *publishing.VIEWS,
    *imports.VIEWS,
    *runbook.VIEWS,
    *audit.VIEWS,
    *activity.VIEWS,
    *settings.VIEWS,
    *keys.VIEWS,
)
"""All pages."""

_NAV: Final = (
    "Overview",
    "Today",
    "Calendar",
    "Users",
    "Failures",
    "Templates",
    "Import",
    "Audit",
    "Activity",
    "Settings",
    "Runbook",
)
"""The order of the navigation; names that no view has are left out."""
_SIGN_IN: Final = f"{ROOT}/sign-in"
_SIGN_OUT: Final = f"{ROOT}/sign-out"
_RETRY_SECONDS: Final = 5


class Gate(Protocol):
    """What the console shares with the API: ``Guard``."""

    def peer(self, request: web.Request) -> str:
        """Return the address of the client."""

    def refuses_host(self, request: web.Request) -> bool:
        """Say whether a request came under a foreign host name although no key protects us."""

    def exceeds_rate(self, request: web.Request, name: str | None) -> bool:
        """Count a request of a key's client, or of an address, and say whether it is one too many."""

    def check_key(self, request: web.Request, given: str) -> tuple[KnownKey | None, str | None]:
        """Return the key, if it is known, and what is wrong with it."""

    def count_refused(self, peer: str, key: KnownKey | None, fault: str) -> int | None:
        """Count and log a refused key. Return how many seconds its client must wait if it has tried too many."""


def add_console(app: web.Application, context: ApiContext, gate: Gate) -> None:
    """Add the pages to the application."""
    named = {view.nav: view for view in VIEWS if view.nav}
    tokens = Tokens(context.pool)
    pages = frozenset(ROOT + view.path for view in VIEWS if view.method == hdrs.METH_GET)
    app[CONSOLE] = Console([named[name] for name in _NAV if name in named], pages, tokens, {})
    app[overview.READER] = overview.make_reader(context)
    frame = _Frame(context, gate, Sessions(context.keys, tokens), tokens)
    app.add_routes(
        [
            web.get(assets.PATH, assets.serve_asset),
            web.get(_SIGN_IN, frame.guarded(frame.ask_key)),
            web.post(_SIGN_IN, frame.guarded(frame.sign_in)),
            web.post(_SIGN_OUT, frame.guarded(_sign_out)),
            *(frame.serve(view) for view in VIEWS),
            *(frame.serve(View(method, "/{rest:.*}", Scope.READ, _unknown)) for method in ("GET", "POST")),
        ]
    )


async def _sign_out(_request: web.Request) -> web.StreamResponse:
    response = see_other(_SIGN_IN)
    response.del_cookie(COOKIE, path=ROOT)
    return response


async def _unknown(request: web.Request) -> web.StreamResponse:
    text = "There is no page at this address. It may belong to another version; the navigation has all pages."
    return page(request, "error.html", title="No such page", text=text, status=HTTPStatus.NOT_FOUND)


class _Frame:
    """What stands around each view."""

    def __init__(self, context: ApiContext, gate: Gate, sessions: Sessions, tokens: Tokens) -> None:
        self._context = context
        self._gate = gate
        self._sessions = sessions
        self._tokens = tokens

    def serve(self, view: View) -> web.RouteDef:
        """Return the route of a view."""
        allow_head = {"allow_head": True} if view.method == hdrs.METH_GET else {}
        return web.route(view.method, ROOT + view.path, self.guarded(self._admitting(view)), **allow_head)

    def guarded(self, handler: Handler) -> Handler:
        """Return ``handler`` for requests that are allowed at all; its errors become pages."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                if self._gate.refuses_host(request):
                    text = "Without API keys this console answers to localhost only, not to another name."
                    return page(request, "error.html", title="Not accepted", text=text, status=HTTPStatus.FORBIDDEN)
                await self._tokens.open()
                now = self._context.clock.now()
                visitor = self._sessions.find(request, now)
                if visitor is not None:
                    request[VISITOR] = visitor
                    if visitor.name is not None:
                        request[CLIENT] = visitor.name
                if self._gate.exceeds_rate(request, visitor.name if visitor else None):
                    return _too_many(request, "Too many requests came from you within a second. Wait a moment.", 1)
                if request.method == hdrs.METH_POST and not is_from_here(request):
                    self._context.metrics.forbidden_accesses.labels("origin").inc()
                    log.warning("auth.forbidden", reason="origin", peer=self._gate.peer(request))
                    return refuse_foreign(request)
                refuse_nul(request.query.items())
                response = await handler(request)
                self._sessions.renew(request, response, now)
            except (BirthdayError, web.HTTPException) as error:
                return _failure(request, error)
            except Exception:
                log.exception("http.failed")
                text = f"This is a mistake of ours. The log of this process tells more, as {request[CALL_ID]}."
                return page(request, "error.html", title="Failed", text=text, status=HTTPStatus.INTERNAL_SERVER_ERROR)
            return response

        return handle

    def _admitting(self, view: View) -> Handler:
        """Return the handler of a view, for visitors who have signed in with its scope."""

        async def handle(request: web.Request) -> web.StreamResponse:
            visitor = request.get(VISITOR)
            if visitor is None:
                return self._send_to_sign_in(request)
            if not can(request, view.scope):
                self._context.metrics.forbidden_accesses.labels("scope").inc()
                log.warning("auth.forbidden", client=visitor.name, scope=visitor.scope.value, needed=view.scope.value)
                return _lacks_scope(request, view, visitor)
            fault = self._context.clock.fault
            if fault is not None and view.method != hdrs.METH_GET:
                raise WrongClockError(fault)
            return await view.handler(request)

        return handle

    async def ask_key(self, request: web.Request) -> web.StreamResponse:
        """Show the page that asks for a key."""
        to = _local(request.query.get("next", ""))
        return see_other(to) if VISITOR in request else self._sign_in_page(request, to)

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """Begin a session, if the key of the form works."""
        form = await read_form(request, 4096)
        given, to = form.get("key", "").strip(), _local(form.get("next", ""))
        if not self._context.keys.required:
            return see_other(to)
        key, fault = self._gate.check_key(request, given)
        if key is None or fault is not None:
            seconds = self._gate.count_refused(self._gate.peer(request), key, fault or "unknown_key")
            if seconds is not None:
                return _too_many(request, "Too many wrong keys came from this address. Wait before the next.", seconds)
            wrong = "This key was revoked, or has expired." if fault == "ended_key" else "This key is not known."
            return self._sign_in_page(request, to, wrong, HTTPStatus.UNAUTHORIZED)
        response = see_other(to)
        # Browsers name the scheme that they came by, whatever proxies there are on the way.
        secure = request.headers.get(hdrs.ORIGIN, "").startswith("https:") or request.secure
        self._sessions.begin(response, key, self._context.clock.now(), secure=secure)
        log.info("console.signed_in", client=key.name, scope=key.scope.value, peer=self._gate.peer(request))
        return response

    def _send_to_sign_in(self, request: web.Request) -> web.Response:
        if request.method in {hdrs.METH_GET, hdrs.METH_HEAD}:
            return see_other(f"{_SIGN_IN}?next={quote(request.path_qs, safe='')}")
        wrong = "Your session has ended, so nothing was changed. Sign in and try again."
        return self._sign_in_page(request, ROOT, wrong, HTTPStatus.UNAUTHORIZED)

    def _sign_in_page(
        self, request: web.Request, to: str, wrong: str = "", status: HTTPStatus = HTTPStatus.OK
    ) -> web.Response:
        # The cookie of a session does not come with the first request that follows a link of another site.
        linked = to if request.headers.get("Sec-Fetch-Site") == "cross-site" else ""
        return page(request, "sign_in.html", title="Sign in", to=to, wrong=wrong, linked=linked, status=status)


def _local(location: str) -> str:
    """Return an address of the console, whatever a link says: the browser must not be led elsewhere."""
    is_ours = location == ROOT or location.startswith((f"{ROOT}/", f"{ROOT}?"))
    is_ours = is_ours and "/." not in unquote(location.partition("?")[0])  # Browsers go up by "..".
    return location if is_ours and location.isprintable() and "\\" not in location else ROOT


def _lacks_scope(request: web.Request, view: View, visitor: Visitor) -> web.Response:
    text = f"This needs a key with the scope {view.scope}; {visitor.name} has {visitor.scope}. Nothing was changed."
    return page(request, "error.html", title="Not allowed", text=text, status=HTTPStatus.FORBIDDEN)


def _too_many(request: web.Request, text: str, seconds: int) -> web.Response:
    response = page(request, "error.html", title="Too many requests", text=text, status=HTTPStatus.TOO_MANY_REQUESTS)
    response.headers[hdrs.RETRY_AFTER] = str(seconds)
    return response


def _failure(request: web.Request, error: BirthdayError | web.HTTPException) -> web.StreamResponse:
    """Return the page that tells an error and what to do next."""
    match error:
        case web.HTTPException():
            if error.status < HTTPStatus.BAD_REQUEST:
                return error
            text = f"{error.text or error.reason}. Nothing was changed. Go back, and try it another way."
            return page(request, "error.html", title=error.reason, text=text, status=HTTPStatus(error.status))
        case NotFoundError():
            title, status = "Not found", HTTPStatus.NOT_FOUND
            text = f"{_sentence(error)} It may have been removed. Search for it, or choose a page above."
        case InvalidInputError():
            title, status = "Not accepted", HTTPStatus.UNPROCESSABLE_ENTITY
            text = f"{_sentence(error)} Nothing was changed. Go back and change it."
        case ConflictError() | OutdatedError():
            title, status = "Not possible", HTTPStatus.CONFLICT
            text = f"{_sentence(error)} Nothing was changed. Go back, and look at it as it is now."
        case WrongClockError():
            title, status = "The clock is wrong", HTTPStatus.SERVICE_UNAVAILABLE
            text = "The clock of this server is wrong, so nothing was changed. Correct it, or use another server."
        case UnavailableError():
            title, status = f"The {error.resource} is away", HTTPStatus.SERVICE_UNAVAILABLE
            log.error("http.unavailable", resource=error.resource, reason=str(error))
            unknown = error.maybe_done and request.method == hdrs.METH_POST
            outcome = "Whether your change was made is not known: look before you repeat it. " if unknown else ""
            text = f"{_sentence(error)} {outcome}The log of this process has the reason. Reload this page in a moment."
        case _:
            raise error
    response = page(request, "error.html", title=title, text=text, status=status)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers[hdrs.RETRY_AFTER] = str(_RETRY_SECONDS)
    return response


def _sentence(error: BirthdayError) -> str:
    text = explain(error)
    return f"{text[:1].upper()}{text[1:]}."
