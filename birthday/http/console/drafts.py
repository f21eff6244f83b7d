"""The form in which a template is written, and the page that has it."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote
from uuid import UUID

from aiohttp import web

from birthday.content import Rendered
from birthday.core.document import parse_json, validate
from birthday.core.template import DEFAULT, PARTS, Source, parse_locale, parse_type, template_name
from birthday.errors import FieldError, InvalidInputError, NotFoundError, OutdatedError
from birthday.http.console.forms import read_form
from birthday.http.console.rendering import page
from birthday.http.console.view import ROOT, actor_of, now
from birthday.http.context import CONTEXT, SUBJECT
from birthday.operations.templates.differences import differences
from birthday.operations.templates.examples import show_examples
from birthday.operations.templates.publishing import Author
from birthday.operations.templates.trying import Trial
from birthday.operations.templates.values import KnownInput, site_of
from birthday.store.connection import borrow
from birthday.store.explain import find_user
from birthday.store.templates import Version, choose_locale, count_audiences, list_versions, read_version

VERSIONS_SHOWN: Final = 20
LOCALES_SHOWN: Final = 8
_EXAMPLE: Final = ("firstName", "lastName", "years", "attributes")
FIELDS: Final = (*PARTS, "began", "who", *_EXAMPLE, "to")
"""The fields of the form: ``began`` is the version that was active when it was opened, ``who`` whom to say it to."""
_PLACE: Final = re.compile(r"\b(message|subject|html|payload)(?:,|:) line (\d+)")


class Fault(NamedTuple):
    """What is wrong with a draft, and the line of it where that is, if it is known."""

    text: str
    place: str = ""
    line: str = ""


class Draft:
    """A template as it stands in the form."""

    def __init__(self, key: tuple[str, str], fields: Mapping[str, str]) -> None:
        """Take the fields that there are. Line breaks become those that templates have."""
        self.key = key
        self.fields = {name: fields.get(name, "").replace("\r\n", "\n") for name in FIELDS}

    @property
    def began(self) -> int:
        """The version that was active when the form was opened; 0 if there was none."""
        text = self.fields["began"]
        return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0

    def source(self) -> Source:
        """Return the template.

        Raises:
            InvalidInputError: if the message is missing.
        """
        if not self.fields["message"].strip():
            raise InvalidInputError(FieldError("/message", "is required: it is what every channel sends"))
        return self.written()

    def written(self) -> Source:
        """Return what is written so far; the message may be empty."""
        message, *others = (self.fields[part] for part in PARTS)
        return Source(message, *(text or None for text in others))

    async def trial(self, request: web.Request) -> Trial:
        """Return for whom the form wants to try it: a user, or somebody made up.

        Raises:
            InvalidInputError: if the template or an example value is wrong.
            NotFoundError: if there is no such user.
        """
        source, who = self.source(), self.fields["who"].strip()
        if not who:
            return Trial(*self.key, known=self._known(), draft=source)
        async with borrow(request.app[CONTEXT].pool) as connection:
            user = await find_user(connection, who)
        return Trial(*self.key, user_id=UUID(str(user.id)), draft=source)

    def _known(self) -> dict[str, Any]:
        given: dict[str, Any] = {name: self.fields[name] for name in _EXAMPLE if self.fields[name].strip()}
        if re.fullmatch("[0-9]{1,3}", given.get("years", "")):
            given["years"] = int(given["years"])
        if "attributes" in given:
            try:
                given["attributes"] = parse_json(given["attributes"].encode())
            except ValueError as error:
                raise InvalidInputError(FieldError("/attributes", f"is not JSON: {error}")) from None
        return validate(KnownInput, given).known()

    def faults(self, error: InvalidInputError) -> list[Fault]:
        """Return what is wrong, each with the line that it is about."""
        return [self._fault(one) for one in error.fields]

    def _fault(self, error: FieldError) -> Fault:
        text = f"{error.name}: {error.detail}".lstrip(": ")
        found = _PLACE.search(text)
        if found is None:
            return Fault(text)
        lines = self.fields[found[1]].split("\n")
        number = int(found[2])
        return Fault(text, f"{found[1]}, line {number}", lines[number - 1] if number <= len(lines) else "")


class Said(NamedTuple):
    """What a draft says, and to whom: a user, or nobody who is real."""

    rendered: Rendered
    user_id: UUID | None


def read_key(request: web.Request) -> tuple[str, str]:
    """Return type and locale of the template that the path names.

    Raises:
        NotFoundError: if there can be no such template.
    """
    try:
        key = parse_type(request.match_info["type"]), parse_locale(request.match_info["locale"])
    except InvalidInputError as error:
        raise NotFoundError(error.fields[0].detail) from None
    request[SUBJECT] = template_name(*key)
    return key


async def read_draft(request: web.Request) -> Draft:
    """Return what the form has."""
    return Draft(read_key(request), await read_form(request))


def path_of(key: tuple[str, str]) -> str:
    """Return the address of a template's page."""
    return f"{ROOT}/templates/{quote(key[0])}/{quote(key[1])}"


def author_of(request: web.Request) -> Author:
    """Return who publishes."""
    return Author(actor_of(request), now(request))


def number_of(active: Version | None) -> int:
    """Return the version that is active, 0 if there is none."""
    return 0 if active is None else active.key.version


def unchanged_since(draft: Draft, active: Version | None) -> None:
    """Let a publication pass that replaces the version that its author has seen.

    Raises:
        OutdatedError: if another one is active now.
    """
    if number_of(active) != draft.began:
        raise OutdatedError(f"version {number_of(active)} has become active since you began")


async def read_active(request: web.Request, key: tuple[str, str]) -> Version | None:
    """Return what is active under a key; None if its users get another template."""
    async with borrow(request.app[CONTEXT].pool) as connection:
        try:
            return await read_version(connection, *key)
        except NotFoundError:
            return None


async def edit(
    request: web.Request,
    draft: Draft,
    faults: Sequence[Fault] = (),
    *,
    said: Said | None = None,
    status: HTTPStatus = HTTPStatus.OK,
) -> web.Response:
    """Return the page of a template, with a draft in its form. If another version became active, it says so."""
    key, context = draft.key, request.app[CONTEXT]
    async with borrow(context.pool) as connection:
        versions = await list_versions(connection, *key, VERSIONS_SHOWN)
        audiences = await count_audiences(connection)
        try:
            used = await choose_locale(connection, key[0], None if key[1] == DEFAULT else key[1])
        except NotFoundError:
            used = None
    active = await read_active(request, key)
    is_outdated = bool(draft.fields["began"]) and draft.began != number_of(active)
    fields = {**draft.fields, "began": str(number_of(active))}
    site = site_of(context.settings)
    return page(
        request,
        "template.html",
        title=f"{key[0]} · {key[1]}",
        status=HTTPStatus.CONFLICT if is_outdated else status,
        key=key,
        path=path_of(key),
        active=active,
        used=used,
        fields=fields,
        faults=faults,
        is_outdated=is_outdated,
        said=said,
        differences=differences(None if active is None else active.source, draft.written()),
        versions=versions,
        is_exact=audiences.is_exact,
        users=audiences.count(*key),
        locales=[one for one in audiences.found if (one.message_type, one.locale) == key][:LOCALES_SHOWN],
        examples=await show_examples(key[1], key[0], now(request).date(), site),
    )
