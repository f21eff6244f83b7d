"""Changes: forms of our own pages only, which ask first and are never repeated by reload and back."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import hdrs, web
from multidict import MultiDict, MultiDictProxy

from birthday.errors import FieldError, InvalidInputError
from birthday.http.console.rendering import NOTICE, page, see_other
from birthday.http.console.view import CONSOLE, ROOT
from birthday.http.context import CONTEXT

CONFIRMED: Final = "confirmed"
"""The field that the button of ``confirm`` adds."""
EDIT: Final = "edit"
"""The field that the button "No" of ``confirm`` adds, if it leads back to the form with what was typed."""
FORM_BYTES: Final = 512 * 1024
"""How large a form may be: a template of the largest size, with each character written as three."""
_MOST_FIELDS: Final = 1000
_NOTICE_SECONDS: Final = 60
_FORM: web.RequestKey[MultiDictProxy[str]] = web.RequestKey("form", MultiDictProxy)


def is_from_here(request: web.Request) -> bool:
    """Say whether a page of this console sends the request.

    Browsers say so by ``Sec-Fetch-Site``, which no page can set, or on plain HTTP, where they omit it, by ``Origin``.
    PUBLIC_URL says by which scheme its host is reached: a page that came by plain HTTP may be anybody's.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get(hdrs.ORIGIN, ""))
    public = urlsplit(request.app[CONTEXT].settings.public_url or "")
    if origin.netloc and origin.netloc.lower() == public.netloc.lower():
        return origin.scheme == public.scheme
    return bool(origin.netloc) and origin.netloc.lower() == request.host.lower()


async def read_form(request: web.Request, most_bytes: int = FORM_BYTES) -> MultiDictProxy[str]:
    """Return the fields of a form; the first call for a request reads them.

    Raises:
        HTTPUnsupportedMediaType: if the body is no such form. One with files is not read here.
        HTTPRequestEntityTooLarge: if it is too large.
        HTTPBadRequest: if it is incomplete, or not UTF-8.
        InvalidInputError: if a field has a NUL character.
    """
    form: MultiDictProxy[str] | None = request.get(_FORM)
    if form is not None:
        return form
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType(text="the form has another type than expected")
    body = bytearray()
    try:
        while piece := await request.content.readany():
            body += piece
            if len(body) > most_bytes:
                raise web.HTTPRequestEntityTooLarge(max_size=most_bytes, actual_size=len(body))
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except (web.RequestPayloadError, ConnectionError, TimeoutError, ValueError) as error:
        raise web.HTTPBadRequest(text=f"the form could not be read: {error}") from None
    refuse_nul(fields)
    request[_FORM] = form = MultiDictProxy(MultiDict(fields))
    return form


def refuse_nul(fields: Iterable[tuple[str, str]]) -> None:
    """Refuse fields of an address or a form that have a NUL character, which the database takes in no text.

    Raises:
        InvalidInputError: if one has.
    """
    if wrong := [name for name, text in fields if "\0" in text]:
        raise InvalidInputError(
            *(FieldError("", "has a NUL character; text without one is accepted", name) for name in wrong)
        )


async def is_confirmed(request: web.Request) -> bool:
    """Say whether the form comes from the button "Yes" of ``confirm``."""
    form = await read_form(request)
    return CONFIRMED in form and EDIT not in form


def confirm(
    request: web.Request,
    question: str,
    *,
    action: str,
    fields: Mapping[str, str] | None = None,
    facts: Sequence[tuple[str, str]] = (),
    back: str | None = ROOT,
) -> web.Response:
    """Return the page that asks before a change, with a button "Yes, ``action``" that sends ``fields`` again to here.

    ``facts`` are the numbers concerned, each with its name. ``back`` is where "No" leads. If it is None, "No"
    sends the fields with ``EDIT``, for the form to be shown again.
    """
    hidden = {**(fields or {}), CONFIRMED: "yes"}
    return page(
        request, "confirm.html", title=question, action=action, fields=hidden, facts=facts, back=back, edit=EDIT
    )


def done(request: web.Request, location: str, text: str) -> web.Response:
    """Return the answer to a change: the browser opens ``location``, which shows ``text`` once."""
    response = see_other(location)
    token = request.app[CONSOLE].tokens.make(NOTICE, text)
    response.set_cookie(NOTICE, token, path=ROOT, httponly=True, samesite="Strict", max_age=_NOTICE_SECONDS)
    return response


def refuse_foreign(request: web.Request) -> web.Response:
    """Return the answer to a form that is not from a page of this console."""
    text = (
        "The request came from another site, or its browser does not say where it came from. Nothing was changed. "
        "Open the page that you want here, and use its button."
    )
    return page(request, "error.html", title="Not accepted", text=text, status=HTTPStatus.FORBIDDEN)
