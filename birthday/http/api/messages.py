"""Messages: lists, one by id, and requeuing of failed ones."""

from datetime import datetime
from typing import Final

import structlog
from aiohttp import hdrs, web

from birthday.config import Scope
from birthday.core.message import Status
from birthday.errors import FieldError, InvalidInputError
from birthday.http.api.message_models import (
    Message,
    MessagePage,
    MessageQuery,
    Retried,
    RetryInput,
    UserMessagesQuery,
)
from birthday.http.api.repeats import CONCERNS, commit_answer, once, pool_of
from birthday.http.api.responses import page_response
from birthday.http.context import CONTEXT, actor_of
from birthday.http.cursors import feed_cursor, message_cursor
from birthday.http.ids import read_id
from birthday.http.json_response import json_response
from birthday.http.kinds import NOT_FAILED, UNKNOWN_MESSAGE, UNKNOWN_USER
from birthday.http.requeueing import requeue_in_turns, sweep_turn, turn
from birthday.http.route import Answer, Route
from birthday.operations.dead_letters.removal import remove_dead
from birthday.operations.dead_letters.requeue import drop_copy, requeue_one
from birthday.store import history
from birthday.store.connection import borrow
from birthday.store.failed import count_failed
from birthday.store.feed import FeedFilter, FeedPosition, find_start, read_feed
from birthday.store.history import FIRST, Selection, list_messages, list_user_messages, read_message

log = structlog.get_logger()


async def read(request: web.Request) -> web.Response:
    """Return one message."""
    message_id = read_id(request, "message")
    async with borrow(request.app[CONTEXT].pool) as connection:
        message = await read_message(connection, message_id)
    return json_response(Message.model_validate(message))


async def list_page(request: web.Request, query: MessageQuery) -> web.Response:
    """Return a page of messages, newest first; or of the feed of outcomes, oldest first, if `updatedAfter` is given."""
    if query.updated_after is not None:
        return await _feed_page(request, query, query.updated_after)
    statuses = tuple(Status) if query.status is None else (query.status,)
    selection = Selection(statuses, query.since, query.until, query.type, query.error_type, query.user_id)
    async with borrow(request.app[CONTEXT].pool) as connection:
        messages = await list_messages(connection, selection, query.cursor or FIRST, query.limit + 1)
    return _page(request, messages, query.limit)


async def _feed_page(request: web.Request, query: MessageQuery, start: FeedPosition | datetime) -> web.Response:
    if query.cursor is not None:
        detail = "is not accepted with updatedAfter; a page of the feed is followed by updatedAfter=<nextCursor>"
        raise InvalidInputError(FieldError("", detail, "cursor"))
    wanted = FeedFilter(query.status, query.type, query.error_type, query.user_id, query.since, query.until)
    async with borrow(request.app[CONTEXT].pool) as connection:
        after = await find_start(connection, start) if isinstance(start, datetime) else start
        page = await read_feed(connection, after, wanted, query.limit)
    cursor = feed_cursor(page.end)
    response = json_response(MessagePage(messages=page.messages, next_cursor=cursor))
    if page.has_more:
        response.headers[hdrs.LINK] = f'<{request.rel_url.update_query(updatedAfter=cursor)}>; rel="next"'
    return response


async def list_page_of_user(request: web.Request, query: UserMessagesQuery) -> web.Response:
    """Return a page of one user's messages, newest first; also of a user who has been deleted or erased."""
    user_id = read_id(request, "user")
    async with borrow(request.app[CONTEXT].pool) as connection:
        messages = await list_user_messages(connection, user_id, query.cursor or FIRST, query.limit + 1)
    return _page(request, messages, query.limit)


async def retry(request: web.Request) -> web.Response:
    """Queue a failed message again, with no attempt used, and remove its dead letter."""
    context = request.app[CONTEXT]
    message_id = read_id(request, "message")
    async with turn(context):
        now, by = context.clock.now(), actor_of(request)
        message = await requeue_one(pool_of(request), context.broker, message_id, now, by, context.tracing)
        request[CONCERNS] = message.user_id
        response = json_response(Message.model_validate(message), 202)
        await commit_answer(request, response)
    context.metrics.messages_queued.inc()
    async with sweep_turn(context):
        await drop_copy(context.pool, context.broker, message.id)
    return response


async def retry_many(request: web.Request, body: RetryInput) -> web.Response:
    """Queue the failed messages again that the body selects, and remove dead letters of messages no longer failed."""
    context = request.app[CONTEXT]
    wanted = body.wanted(context.clock.now())
    async with borrow(context.pool) as connection:
        selected = sum(group.messages for group in await count_failed(connection, wanted))
    requeued = 0

    def on_batch(number: int) -> None:
        nonlocal requeued
        requeued += number

    by = actor_of(request)
    try:
        await requeue_in_turns(context, wanted, body.limit, by, on_batch)
    finally:
        log.info("dlq.requeued", messages=requeued, selected=selected)
    async with sweep_turn(context):
        await remove_dead(context.pool, context.broker, None, context.clock, by, lambda _sifted: None)
    return json_response(Retried(requeued=requeued, remaining=max(0, selected - body.limit)), 202)


def _page(request: web.Request, messages: list[history.Message], limit: int) -> web.Response:
    page = messages[:limit]
    cursor = message_cursor(page[-1]) if len(messages) > limit else None
    return page_response(request, MessagePage(messages=page, next_cursor=cursor), cursor)


_PAGE: Final = Answer("A page of messages.", MessagePage)

ROUTES: Final = (
    Route("GET", "/messages", Scope.READ, list_page, "listMessages", _PAGE),
    Route("GET", "/users/{id}/messages", Scope.READ, list_page_of_user, "listMessagesOfUser", _PAGE, (UNKNOWN_USER,)),
    Route(
        "POST",
        "/messages/retry",
        Scope.ADMIN,
        retry_many,
        "retryMessages",
        Answer("How many were queued, and how many more are selected.", Retried, 202),
        repeats=once,
    ),
    # Not 'retry': otherwise a GET of the path above would match here, and the answer would be 404 instead of 405.
    Route(
        "GET",
        "/messages/{id:(?!retry$)[^/]+}",
        Scope.READ,
        read,
        "readMessage",
        Answer("The message.", Message),
        (UNKNOWN_MESSAGE,),
    ),
    Route(
        "POST",
        "/messages/{id}/retry",
        Scope.ADMIN,
        retry,
        "retryMessage",
        Answer("The message, queued.", Message, 202),
        (UNKNOWN_MESSAGE, NOT_FAILED),
        repeats=once,
    ),
)
