"""Templates: which there are and who gets them, writing one, and making an older version active again."""

from http import HTTPStatus
from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.core.message import BIRTHDAY
from birthday.core.template import DEFAULT, PARTS, Source, TemplateKey, parse_locale, parse_type, template_name
from birthday.errors import FieldError, InvalidInputError, NotFoundError
from birthday.http.console.drafts import (
    Draft,
    Said,
    author_of,
    edit,
    number_of,
    path_of,
    read_active,
    read_draft,
    read_key,
)
from birthday.http.console.forms import confirm, done, is_confirmed, read_form
from birthday.http.console.privacy import note_viewed
from birthday.http.console.rendering import page, see_other
from birthday.http.console.view import View, now
from birthday.http.context import CONTEXT
from birthday.operations.templates.publishing import activate_version
from birthday.operations.templates.trying import preview
from birthday.operations.templates.values import site_of
from birthday.store.connection import borrow
from birthday.store.templates import choose_locale, count_audiences, list_active, read_version

_ISOLATED: Final = {
    # No script, no form, no link to the console, nothing from elsewhere: what an author writes is shown, and no more.
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'self'"
    ),
    "Referrer-Policy": "no-referrer",
}


async def list_all(request: web.Request) -> web.Response:
    """Show the templates, who gets each, and the form for another one."""
    return await _list(request, HTTPStatus.OK)


async def _list(request: web.Request, status: HTTPStatus, wrong: str = "") -> web.Response:
    async with borrow(request.app[CONTEXT].pool) as connection:
        templates = await list_active(connection)
        audiences = await count_audiences(connection)
    types = sorted({BIRTHDAY, *(one.message_type for one in audiences.found)})
    return page(
        request,
        "templates.html",
        title="Templates",
        status=status,
        templates=[(one, path_of(one.key[:2]), audiences.count(*one.key[:2])) for one in templates],
        is_exact=audiences.is_exact,
        nothing=[(one, users) for one in types if (users := audiences.count(one, None))],
        elsewhere=[one for one in audiences.found if one.user_locale and one.locale not in {None, one.user_locale}],
        types=types,
        given={"type": request.query.get("type", BIRTHDAY), "locale": request.query.get("locale", "")},
        wrong=wrong,
    )


async def begin(request: web.Request) -> web.Response:
    """Lead to the page of a type and a locale, which need not have a template yet."""
    try:
        key = parse_type(request.query.get("type", "").strip()), parse_locale(request.query.get("locale", "").strip())
    except InvalidInputError as error:
        return await _list(request, HTTPStatus.UNPROCESSABLE_ENTITY, error.fields[0].detail)
    return see_other(path_of(key))


async def write(request: web.Request) -> web.Response:
    """Show a template in the form: the active version, or the one that is asked for."""
    key, asked = read_key(request), request.query.get("version", "")
    active = await read_active(request, key)
    source = Source("") if active is None else active.source
    async with borrow(request.app[CONTEXT].pool) as connection:
        if asked.isascii() and asked.isdigit() and len(asked) < 10:
            source = (await read_version(connection, *key, int(asked))).source
        elif active is None:
            # The text that its users get now is what the author begins with.
            try:
                used = await choose_locale(connection, key[0], None if key[1] == DEFAULT else key[1])
                source = (await read_version(connection, key[0], used)).source
            except NotFoundError:
                source = Source("")
    fields = {part: getattr(source, part) or "" for part in PARTS}
    return await edit(request, Draft(key, {**fields, "began": str(number_of(active))}))


async def try_out(request: web.Request) -> web.Response:
    """Show what the draft says to a user, or to somebody made up. Nothing is stored."""
    draft = await read_draft(request)
    try:
        said = await _say(request, draft)
    except (InvalidInputError, NotFoundError) as error:
        wrong = error if isinstance(error, InvalidInputError) else _not_found(error)
        return await edit(request, draft, draft.faults(wrong), status=HTTPStatus.UNPROCESSABLE_ENTITY)
    return await edit(request, draft, said=said)


async def show_html(request: web.Request) -> web.Response:
    """Return the HTML that the draft says, for a frame that is cut off from the console."""
    said = (await _say(request, await read_draft(request))).rendered
    return web.Response(text=said.html or "", content_type="text/html", headers=_ISOLATED)


async def activate(request: web.Request) -> web.Response:
    """Make another version of a template active."""
    key, form = read_key(request), await read_form(request)
    name, text = template_name(*key), form.get("version", "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise web.HTTPBadRequest(text="the version is missing")
    version = int(text)
    withdraws = version == 0 and key != (BIRTHDAY, DEFAULT)
    if await is_confirmed(request):
        await activate_version(request.app[CONTEXT].pool, TemplateKey(*key, version), author_of(request))
        told = f"{name} is withdrawn" if withdraws else f"Version {version} of {name} is active"
        return done(request, path_of(key), f"{told}. All processes follow within five seconds.")
    async with borrow(request.app[CONTEXT].pool) as connection:
        if version:
            await read_version(connection, *key, version)
        audiences = await count_audiences(connection)
    users = f"{audiences.count(*key):,}" if audiences.is_exact else f"about {audiences.count(*key):,}"
    active = await read_active(request, key)
    question = f"Withdraw {name}?" if withdraws else f"Make version {version} of {name} active?"
    return confirm(
        request,
        question,
        action="withdraw it" if withdraws else f"activate version {version}",
        fields={"version": text},
        facts=[("Active now", f"version {number_of(active)}" if active else "nothing"), ("Users who get it", users)],
        back=path_of(key),
    )


async def _say(request: web.Request, draft: Draft) -> Said:
    trial, context = await draft.trial(request), request.app[CONTEXT]
    today, site = now(request).date(), site_of(context.settings)
    tried = await preview(context.pool, context.compiler, trial, today, site)
    if trial.user_id is not None:
        await note_viewed(request, [trial.user_id])
    return Said(tried.said, trial.user_id)


def _not_found(error: NotFoundError) -> InvalidInputError:
    return InvalidInputError(FieldError("", str(error)))


_PATH: Final = "/templates/{type}/{locale}"

VIEWS: Final = (
    View("GET", "/templates", Scope.READ, list_all, nav="Templates"),
    View("GET", "/templates/new", Scope.ADMIN, begin),
    View("GET", _PATH, Scope.ADMIN, write),
    View("POST", _PATH, Scope.ADMIN, try_out),
    View("POST", f"{_PATH}/html", Scope.ADMIN, show_html),
    View("POST", f"{_PATH}/activate", Scope.ADMIN, activate),
)
