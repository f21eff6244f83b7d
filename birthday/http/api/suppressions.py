"""Opt-out: suppress a user, take it back, and list who is suppressed."""

from typing import Any

import structlog
from aiohttp import web

from birthday.errors import FieldError, InvalidInputError
from birthday.http.api.cursors import read_suppression_cursor, suppression_cursor
from birthday.http.api.requests import read_id, read_json, read_limit, read_query
from birthday.http.api.responses import page_response
from birthday.http.context import CONTEXT, actor_of
from birthday.http.json_response import json_response
from birthday.operations.suppressions import check_reason, suppress_user, unsuppress_user
from birthday.store.connection import borrow
from birthday.store.suppressions import FIRST, Suppression, list_suppressions

log = structlog.get_logger()

DEFAULT_REASON = "asked for through the API"


async def put(request: web.Request) -> web.Response:
    """Suppress a user; what is pending is cancelled. If the user is suppressed already, the first reason stays."""
    context = request.app[CONTEXT]
    user_id = read_id(request, "user")
    reason = _read_reason(await read_json(request))
    by = actor_of(request)
    entry, changed = await suppress_user(context.pool, user_id, reason, context.clock.now(), by)
    log.info("user.suppressed", user_id=str(user_id), by=by.name, messages_cancelled=changed.messages)
    context.metrics.suppressions.labels("api").inc(changed.addresses)
    context.metrics.messages_cancelled.inc(changed.messages)
    context.metrics.messages_suppressed.inc(changed.messages)
    return json_response(_json(entry))


async def delete(request: web.Request) -> web.Response:
    """Take a user's address off the list, if it is there: the user is greeted again."""
    context = request.app[CONTEXT]
    user_id = read_id(request, "user")
    changed = await unsuppress_user(context.pool, user_id, context.clock.now(), actor_of(request))
    log.info("user.unsuppressed", user_id=str(user_id), messages_scheduled=changed.messages)
    return web.Response(status=204)


async def list_page(request: web.Request) -> web.Response:
    """Return a page of the list of suppressed addresses, newest first."""
    query = read_query(request, "limit", "cursor")
    limit, after = read_limit(query), read_suppression_cursor(query) or FIRST
    async with borrow(request.app[CONTEXT].pool) as connection:
        entries = await list_suppressions(connection, after, limit + 1)
    page = entries[:limit]
    cursor = suppression_cursor(page[-1]) if len(entries) > limit else None
    return page_response(request, "suppressions", [_json(entry) for entry in page], cursor)


def _json(entry: Suppression) -> dict[str, Any]:
    return {
        "addressHash": entry.address_hash.hex(),
        "reason": entry.reason,
        "createdAt": entry.created_at,
        "createdBy": entry.created_by,
    }


def _read_reason(data: object) -> str:
    if not isinstance(data, dict):
        raise InvalidInputError(FieldError("", "a JSON object is accepted"))
    errors = [
        FieldError("/" + name.replace("~", "~0").replace("/", "~1"), "is not accepted here; reason is accepted")
        for name in data
        if name != "reason"
    ]
    reason = data.get("reason", DEFAULT_REASON)
    try:
        check_reason(reason)
    except ValueError as error:
        errors.append(FieldError("/reason", str(error)))
    if errors:
        raise InvalidInputError(*errors)
    return str(reason)
