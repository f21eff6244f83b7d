"""Templates: list, read, publish, try and activate what messages say."""

from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from birthday.channels import Delivered
from birthday.config import Scope
from birthday.core.template import TemplateKey, parse_locale, parse_type, template_name
from birthday.errors import FieldError, InvalidInputError
from birthday.http.api.repeats import commit_answer, concern, once, pool_of
from birthday.http.api.responses import page_response
from birthday.http.api.template_models import (
    ActivateInput,
    ActiveTemplate,
    PublishInput,
    TemplatePage,
    TemplatePreview,
    TemplatesQuery,
    TemplateTest,
    TemplateVersion,
    TestInput,
    TrialInput,
    VersionPage,
    VersionsQuery,
)
from birthday.http.conditional import check_condition, has_condition, tagged
from birthday.http.context import CONTEXT, SUBJECT, ApiContext, actor_of
from birthday.http.cursors import template_cursor, version_cursor
from birthday.http.json_response import json_bytes, json_response
from birthday.http.kinds import DEFAULT_NEEDED, INVALID_PARAMETER, OUTDATED, UNKNOWN_TEMPLATE, UNKNOWN_USER
from birthday.http.route import Answer, Route
from birthday.operations.templates.publishing import Author, activate_version, publish_template
from birthday.operations.templates.trying import Tried, preview, send_test
from birthday.operations.templates.values import site_of
from birthday.store.connection import borrow
from birthday.store.templates import MAX_VERSION, Active, Version, list_active, list_versions, place_of, read_version


async def list_page(request: web.Request, query: TemplatesQuery) -> web.Response:
    """Return a page of the templates: which version of each is active."""
    async with borrow(request.app[CONTEXT].pool) as connection:
        active = await list_active(connection)
    if query.cursor is not None:
        place = place_of(*query.cursor)
        active = [one for one in active if place_of(*one.key[:2]) > place]
    page = active[: query.limit]
    cursor = template_cursor(page[-1].key) if len(active) > query.limit else None
    return page_response(request, TemplatePage(templates=[_active(one) for one in page], next_cursor=cursor), cursor)


async def read(request: web.Request) -> web.Response:
    """Return the active version of a template."""
    return await _answer(request.app[CONTEXT], *_read_key(request))


async def list_page_of_versions(request: web.Request, query: VersionsQuery) -> web.Response:
    """Return a page of the versions of a template, the newest first."""
    key, limit = _read_key(request), query.limit
    before = MAX_VERSION if query.cursor is None else query.cursor
    async with borrow(request.app[CONTEXT].pool) as connection:
        versions = await list_versions(connection, *key, limit + 1, before)
    cursor = version_cursor(versions[limit - 1].key) if len(versions) > limit else None
    page = VersionPage(versions=[_version(version) for version in versions[:limit]], next_cursor=cursor)
    return page_response(request, page, cursor)


async def publish(request: web.Request, body: PublishInput) -> web.Response:
    """Publish a template. It is tried for every user whom it concerns, and refused if it fails for some."""
    context, key = request.app[CONTEXT], _read_key(request)
    author, site = _author(request), site_of(context.settings)
    template = await context.compiler.compile(body.source(), key[1])
    published = await publish_template(
        context.pool,
        key,
        template,
        author,
        site,
        force=body.force,
        check=_check(request),
    )
    return tagged(await _answer(context, *key, published.key.version, status=201 if published.is_new else 200))


async def activate(request: web.Request, body: ActivateInput) -> web.Response:
    """Make another version of a template active. `If-Match` takes the tag of the template."""
    pool, key = pool_of(request), _read_key(request)
    await activate_version(pool, TemplateKey(*key, body.version), _author(request), _check(request))
    async with borrow(pool) as connection:
        [active] = [one for one in await list_active(connection) if one.key[:2] == key]
    return json_response(_active(active))


async def try_out(request: web.Request, body: TrialInput) -> web.Response:
    """Return what a template says to a user, or to somebody made up."""
    context, key = request.app[CONTEXT], _read_key(request)
    if body.user_id is not None:
        await concern(request, body.user_id)
    today, site = context.clock.now().date(), site_of(context.settings)
    tried = await preview(context.pool, context.compiler, body.trial(*key), today, site)
    return json_response(_preview(tried))


async def send(request: web.Request, body: TestInput) -> web.Response:
    """Send what a template says to an address, marked as a test."""
    context, key = request.app[CONTEXT], _read_key(request)
    now, site = context.clock.now(), site_of(context.settings)
    trial = body.trial(*key)
    outcome = await send_test(context.pool, context.channel, context.compiler, trial, body.to, now, site)
    reason = None if isinstance(outcome, Delivered) else outcome.reason
    # The service may have named the address, so the reason is not stored.
    await commit_answer(request, json_response(TemplateTest(delivered=reason is None, reason=None)))
    return json_response(TemplateTest(delivered=reason is None, reason=reason))


def _read_key(request: web.Request) -> tuple[str, str]:
    try:
        key = parse_type(request.match_info["type"]), parse_locale(request.match_info["locale"])
    except InvalidInputError as error:
        raise InvalidInputError(*(FieldError("", one.detail, one.name) for one in error.fields)) from None
    request[SUBJECT] = template_name(*key)
    return key


def _check(request: web.Request) -> Callable[[Version | None], None] | None:
    """Return what checks the condition of a change against the active version; None if there is no condition."""

    def check(active: Version | None) -> None:
        check_condition(request, None if active is None else json_bytes(_version(active)))

    return check if has_condition(request) else None


def _author(request: web.Request) -> Author:
    return Author(actor_of(request), request.app[CONTEXT].clock.now())


async def _answer(
    context: ApiContext, message_type: str, locale: str, version: int | None = None, *, status: int = 200
) -> web.Response:
    async with borrow(context.pool) as connection:
        found = await read_version(connection, message_type, locale, version)
    return json_response(_version(found), status)


def _active(active: Active) -> ActiveTemplate:
    return ActiveTemplate(**_key(active.key), activated_at=active.activated_at, activated_by=active.activated_by)


def _version(version: Version) -> TemplateVersion:
    source = version.source
    return TemplateVersion(
        **_key(version.key),
        message=source.message,
        subject=source.subject,
        html=source.html,
        payload=source.payload,
        active=version.is_active,
        created_at=version.created_at,
        created_by=version.created_by,
    )


def _key(key: TemplateKey) -> dict[str, Any]:
    return {"type": key.message_type, "locale": key.locale, "version": key.version}


def _preview(tried: Tried) -> TemplatePreview:
    said = tried.said
    return TemplatePreview(
        version=None if tried.key is None else tried.key.version,
        message=said.message,
        subject=said.subject,
        html=said.html,
        payload=None if said.payload is None else said.payload.decode(),
    )


_PATH: Final = "/templates/{type}/{locale}"
_NONE: Final = (UNKNOWN_TEMPLATE, INVALID_PARAMETER)

ROUTES: Final = (
    Route("GET", "/templates", Scope.ADMIN, list_page, "listTemplates", Answer("A page of templates.", TemplatePage)),
    Route("GET", _PATH, Scope.ADMIN, read, "readTemplate", Answer("The version.", TemplateVersion), _NONE),
    Route(
        "PUT",
        _PATH,
        Scope.ADMIN,
        publish,
        "publishTemplate",
        (
            Answer("The new version, which is active.", TemplateVersion, 201),
            Answer("The version that was active already: it is the same.", TemplateVersion),
        ),
        (DEFAULT_NEEDED, INVALID_PARAMETER, OUTDATED),
    ),
    Route(
        "GET",
        f"{_PATH}/versions",
        Scope.ADMIN,
        list_page_of_versions,
        "listTemplateVersions",
        Answer("A page of versions, the newest first.", VersionPage),
        _NONE,
    ),
    Route(
        "POST",
        f"{_PATH}/preview",
        Scope.ADMIN,
        try_out,
        "previewTemplate",
        Answer("What it says.", TemplatePreview),
        (*_NONE, UNKNOWN_USER),
        repeats=once,
    ),
    Route(
        "POST",
        f"{_PATH}/test",
        Scope.ADMIN,
        send,
        "testTemplate",
        Answer("Whether it was accepted.", TemplateTest),
        (*_NONE, UNKNOWN_USER),
        repeats=once,
    ),
    Route(
        "POST",
        f"{_PATH}/activate",
        Scope.ADMIN,
        activate,
        "activateTemplate",
        Answer("What is active now.", ActiveTemplate),
        (*_NONE, DEFAULT_NEEDED, OUTDATED),
        repeats=once,
    ),
)
