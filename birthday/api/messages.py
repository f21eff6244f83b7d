"""Messages: lists, one by id, and another start for one that failed."""

import asyncio

from aiohttp import web

from birthday.api.context import CONTEXT
from birthday.api.cursors import message_cursor, read_message_cursor
from birthday.api.requests import read_id, read_limit, read_period, read_query, read_status
from birthday.api.responses import json_response, message_json
from birthday.errors import UnavailableError
from birthday.store.connection import borrow
from birthday.store.history import (
    FIRST,
    Message,
    Selection,
    list_messages,
    list_user_messages,
    read_message,
    requeue_failed,
)

PUBLISH_SECONDS = 5.0


async def read(request: web.Request) -> web.Response:
    """Return one message."""
    message_id = read_id(request, "message")
    async with borrow(request.app[CONTEXT].pool) as connection:
        message = await read_message(connection, message_id)
    return json_response(message_json(message))


async def list_page(request: web.Request) -> web.Response:
    """Return a page of messages by state and time, newest first."""
    query = read_query(request, "status", "from", "to", "limit", "cursor")
    selection = Selection(read_status(query), *read_period(query))
    limit, after = read_limit(query), read_message_cursor(query) or FIRST
    async with borrow(request.app[CONTEXT].pool) as connection:
        messages = await list_messages(connection, selection, after, limit + 1)
    return _page(messages, limit)


async def list_page_of_user(request: web.Request) -> web.Response:
    """Return a page of one user's messages, newest first."""
    query = read_query(request, "limit", "cursor")
    user_id = read_id(request, "user")
    limit, after = read_limit(query), read_message_cursor(query) or FIRST
    async with borrow(request.app[CONTEXT].pool) as connection:
        messages = await list_user_messages(connection, user_id, after, limit + 1)
    return _page(messages, limit)


async def retry(request: web.Request) -> web.Response:
    """Queue a failed message again, with all its attempts before it.

    The worker still cancels it at the claim if the user is gone or has moved.
    """
    context = request.app[CONTEXT]
    message_id = read_id(request, "message")
    async with borrow(context.pool) as connection, connection.transaction():
        message = await requeue_failed(connection, message_id, context.clock.now())
        try:
            # Before the commit: what is 'queued' has been confirmed. A worker that is faster waits for the row.
            async with asyncio.timeout(PUBLISH_SECONDS):
                await context.broker.publish([message_id])
        except TimeoutError:
            raise UnavailableError("queue", f"the queue did not confirm within {PUBLISH_SECONDS:g} s") from None
    context.metrics.messages_queued.inc()
    return json_response(message_json(message), 202)


def _page(messages: list[Message], limit: int) -> web.Response:
    page = messages[:limit]
    cursor = message_cursor(page[-1]) if len(messages) > limit else None
    return json_response({"messages": [message_json(message) for message in page], "nextCursor": cursor})
