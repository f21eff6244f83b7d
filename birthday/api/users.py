"""Users: create, read, list, replace, change, delete. The planning that belongs to a change is done by the store."""

from collections.abc import Callable
from datetime import datetime

from aiohttp import web

from birthday.api.context import CONTEXT, SUBJECT
from birthday.api.cursors import read_user_cursor, user_cursor
from birthday.api.requests import read_id, read_json, read_limit, read_query
from birthday.api.responses import json_response, user_json
from birthday.core.ident import uuid7
from birthday.core.user import Profile, parse_profile, patch_profile
from birthday.store.connection import borrow
from birthday.store.users import create_user, delete_user, list_users, lock_profile, read_user, replace_profile


async def create(request: web.Request) -> web.Response:
    """Create a user; what falls due soon is planned at once."""
    context = request.app[CONTEXT]
    data = await read_json(request)
    now = context.clock.now()
    user, planned = await create_user(context.pool, uuid7(now), parse_profile(data, now), now, context.planning)
    context.metrics.users_created.inc()
    context.metrics.messages_scheduled.inc(planned)
    request[SUBJECT] = str(user.id)
    return json_response(user_json(user), 201, {"Location": f"/users/{user.id}"})


async def read(request: web.Request) -> web.Response:
    """Return one user."""
    context = request.app[CONTEXT]
    user_id = read_id(request, "user")
    async with borrow(context.pool) as connection:
        user = await read_user(connection, user_id, context.clock.now(), context.settings.rules)
    return json_response(user_json(user))


async def list_page(request: web.Request) -> web.Response:
    """Return a page of users in order of creation."""
    context = request.app[CONTEXT]
    query = read_query(request, "limit", "cursor")
    limit, after = read_limit(query), read_user_cursor(query)
    async with borrow(context.pool) as connection:
        # One more than the page holds tells whether there is another page.
        users = await list_users(connection, after, limit + 1, context.clock.now(), context.settings.rules)
    page = users[:limit]
    cursor = user_cursor(page[-1]) if len(users) > limit else None
    return json_response({"users": [user_json(user) for user in page], "nextCursor": cursor})


async def replace(request: web.Request) -> web.Response:
    """Replace a user's profile as a whole."""
    data = await read_json(request)
    return await _change(request, lambda _old, now: parse_profile(data, now))


async def patch(request: web.Request) -> web.Response:
    """Change the members of a user's profile that are given."""
    changes = await read_json(request)
    return await _change(request, lambda old, now: patch_profile(old, changes, now))


async def delete(request: web.Request) -> web.Response:
    """Delete a user; what is pending is cancelled."""
    context = request.app[CONTEXT]
    cancelled = await delete_user(context.pool, read_id(request, "user"), context.clock.now())
    context.metrics.messages_cancelled.inc(cancelled)
    return web.Response(status=204)


async def _change(request: web.Request, change: Callable[[Profile, datetime], Profile]) -> web.Response:
    """Apply ``change`` to a profile in one transaction, which every other change of that user waits for."""
    context = request.app[CONTEXT]
    user_id = read_id(request, "user")
    async with borrow(context.pool) as connection, connection.transaction():
        old = await lock_profile(connection, user_id)
        now = context.clock.now()
        replanned = await replace_profile(connection, user_id, old, change(old, now), now, context.planning)
        user = await read_user(connection, user_id, now, context.settings.rules)
    context.metrics.messages_scheduled.inc(replanned.planned)
    context.metrics.messages_cancelled.inc(replanned.cancelled)
    return json_response(user_json(user))
