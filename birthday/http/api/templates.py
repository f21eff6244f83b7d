"""Templates: list, read, publish, try and activate what messages say."""

from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from birthday.channels import Delivered
from birthday.content import Rendered
from birthday.core.document import validate
from birthday.core.template import TemplateKey, parse_locale, parse_type, template_name
from birthday.http.api.repeats import CONCERNS, once, pool_of
from birthday.http.api.requests import read_json, read_limit, read_query
from birthday.http.api.template_models import ActivateInput, PublishInput, TestInput, TrialInput
from birthday.http.conditional import check_condition, has_condition, tagged
from birthday.http.context import CONTEXT, SUBJECT, ApiContext, actor_of
from birthday.http.json_response import json_bytes, json_response
from birthday.operations.templates.publishing import Author, activate_version, publish_template
from birthday.operations.templates.trying import Tried, preview, send_test
from birthday.operations.templates.values import site_of
from birthday.store.connection import borrow
from birthday.store.templates import Active, Version, list_active, list_versions, read_version

_Model = TypeVar("_Model", bound=BaseModel)


async def list_all(request: web.Request) -> web.Response:
    """Return which version of each template is active."""
    async with borrow(request.app[CONTEXT].pool) as connection:
        active = await list_active(connection)
    return json_response({"templates": [_active_json(one) for one in active]})


async def read(request: web.Request) -> web.Response:
    """Return the active version of a template."""
    return await _answer(request.app[CONTEXT], *_read_key(request))


async def list_page(request: web.Request) -> web.Response:
    """Return the newest versions of a template."""
    key, limit = _read_key(request), read_limit(read_query(request, "limit"))
    async with borrow(request.app[CONTEXT].pool) as connection:
        versions = await list_versions(connection, *key, limit)
    return json_response({"versions": [_version_json(version) for version in versions]})


async def publish(request: web.Request) -> web.Response:
    """Publish a template, unless it fails for somebody."""
    context, key = request.app[CONTEXT], _read_key(request)
    given = await _read_body(request, PublishInput)
    author, site = _author(request), site_of(context.settings)

    def check(active: Version | None) -> None:
        check_condition(request, None if active is None else json_bytes(_version_json(active)))

    published = await publish_template(
        context.pool,
        key,
        given.source(),
        author,
        site,
        force=given.force,
        check=check if has_condition(request) else None,
    )
    return tagged(await _answer(context, *key, published.key.version, status=201 if published.is_new else 200))


@once
async def activate(request: web.Request) -> web.Response:
    """Make another version active."""
    pool, key = pool_of(request), _read_key(request)
    version = (await _read_body(request, ActivateInput)).version
    await activate_version(pool, TemplateKey(*key, version), _author(request))
    async with borrow(pool) as connection:
        [active] = [one for one in await list_active(connection) if one.key[:2] == key]
    return json_response(_active_json(active))


@once
async def try_out(request: web.Request) -> web.Response:
    """Return what a template says."""
    context, key = request.app[CONTEXT], _read_key(request)
    trial = (await _read_body(request, TrialInput)).trial(*key)
    if trial.user_id is not None:
        request[CONCERNS] = trial.user_id
    tried = await preview(context.pool, trial, context.clock.now().date(), site_of(context.settings))
    return json_response(_tried_json(tried))


@once
async def send(request: web.Request) -> web.Response:
    """Send what a template says to an address, marked as a test."""
    context, key = request.app[CONTEXT], _read_key(request)
    given = await _read_body(request, TestInput)
    now, site = context.clock.now(), site_of(context.settings)
    outcome = await send_test(context.pool, context.channel, given.trial(*key), given.to, now, site)
    reason = None if isinstance(outcome, Delivered) else outcome.reason
    return json_response({"delivered": reason is None, "reason": reason})


def _read_key(request: web.Request) -> tuple[str, str]:
    key = parse_type(request.match_info["type"]), parse_locale(request.match_info["locale"])
    request[SUBJECT] = template_name(*key)
    return key


async def _read_body(request: web.Request, model: type[_Model]) -> _Model:
    return validate(model, await read_json(request))


def _author(request: web.Request) -> Author:
    return Author(actor_of(request), request.app[CONTEXT].clock.now())


async def _answer(
    context: ApiContext, message_type: str, locale: str, version: int | None = None, *, status: int = 200
) -> web.Response:
    async with borrow(context.pool) as connection:
        found = await read_version(connection, message_type, locale, version)
    return json_response(_version_json(found), status)


def _active_json(active: Active) -> dict[str, Any]:
    return _key_json(active.key) | {"activatedAt": active.activated_at, "activatedBy": active.activated_by}


def _version_json(version: Version) -> dict[str, Any]:
    source = version.source
    return _key_json(version.key) | {
        "message": source.message,
        "subject": source.subject,
        "html": source.html,
        "payload": source.payload,
        "active": version.is_active,
        "createdAt": version.created_at,
        "createdBy": version.created_by,
    }


def _key_json(key: TemplateKey) -> dict[str, Any]:
    return {"type": key.message_type, "locale": key.locale, "version": key.version}


def _tried_json(tried: Tried) -> dict[str, Any]:
    said: Rendered = tried.said
    return {
        "version": None if tried.key is None else tried.key.version,
        "message": said.message,
        "subject": said.subject,
        "html": said.html,
        "payload": None if said.payload is None else said.payload.decode(),
    }
