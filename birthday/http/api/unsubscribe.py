"""The pages behind unsubscribe links: one button, no script, no key, no cookie.

GET and HEAD change nothing, because mail programs and scanners follow links. POST unsubscribes, whether the button
sends it or, with one click, a mail program (RFC 8058).
"""

import hashlib
from base64 import b64encode
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web

from birthday.core.unsubscribe import Links, Unsubscriber
from birthday.errors import UnavailableError
from birthday.http.context import CALL_ID, SUBJECT, ApiContext
from birthday.operations.suppressions import BY_LINK, unsubscribe
from birthday.store.changes import Actor
from birthday.store.connection import borrow
from birthday.store.suppressions import read_links

log = structlog.get_logger()

PATH: Final = "/unsubscribe/{token}"

_STYLE: Final = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:26rem;padding:0 1.5rem}"
    "button{font:inherit;padding:.6rem 1.4rem}"
)
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <meta name="robots" content="noindex">
    <title>{title}</title>
    <style>{style}</style>
  </head>
  <body>
    <h1>{title}</h1>
    <p>{text}</p>{form}
  </body>
</html>
"""
_FORM: Final = """
    <form method="post"><button type="submit">Unsubscribe</button></form>"""
_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    # The address of the page is what unsubscribes.
    "Referrer-Policy": "no-referrer",
}


class UnsubscribePages:
    """Answers at ``PATH``. The secrets are read from the database once, when the first link is followed."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._links: Links | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; they are open to everybody."""
        return [web.get(PATH, self._ask), web.post(PATH, self._unsubscribe)]

    async def _ask(self, request: web.Request) -> web.Response:
        try:
            named = await self._read(request)
        except UnavailableError as error:
            return _unavailable(error)
        if named is None:
            return _unknown()
        return _page("Unsubscribe", "Do you want to stop these messages? Nothing more will be sent to you.", _FORM)

    async def _unsubscribe(self, request: web.Request) -> web.Response:
        context = self._context
        try:
            named = await self._read(request)
            if named is None:
                return _unknown()
            changed = await unsubscribe(context.pool, named, context.clock.now(), Actor(BY_LINK, request[CALL_ID]))
        except UnavailableError as error:
            return _unavailable(error)
        request[SUBJECT] = str(named.user_id)
        log.info("user.unsubscribed", user_id=str(named.user_id), messages_cancelled=changed.messages)
        context.metrics.suppressions.labels("link").inc(changed.addresses)
        context.metrics.messages_cancelled.inc(changed.messages)
        context.metrics.messages_suppressed.inc(changed.messages)
        return _page("You are unsubscribed", "Nothing more will be sent to you.")

    async def _read(self, request: web.Request) -> Unsubscriber | None:
        if self._links is None:
            async with borrow(self._context.pool) as connection:
                self._links = await read_links(connection)
        return self._links.read_token(request.match_info["token"])


def _page(title: str, text: str, form: str = "", status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    body = _PAGE.format(title=title, text=text, form=form, style=_STYLE)
    return web.Response(text=body, status=status, content_type="text/html", headers=_HEADERS)


def _unknown() -> web.Response:
    text = "This link is not complete, or not one of ours. Please use the link in your message as it is."
    return _page("Link not found", text, status=HTTPStatus.NOT_FOUND)


def _unavailable(error: UnavailableError) -> web.Response:
    log.error("http.unavailable", resource=error.resource, reason=str(error))
    text = "You are not unsubscribed yet. Please try again in a few minutes."
    return _page("Not possible now", text, status=HTTPStatus.SERVICE_UNAVAILABLE)
