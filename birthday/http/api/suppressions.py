"""Opt-out: suppress a user, take it back, and list who is suppressed."""

from functools import partial
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field, PlainValidator, WithJsonSchema

from birthday.config import Scope
from birthday.http.api.parameters import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Input,
    Instant,
    Limit,
    NextCursor,
    Output,
    example,
)
from birthday.http.api.responses import page_response
from birthday.http.api.users import UNCHANGED, check_state
from birthday.http.context import CONTEXT, actor_of
from birthday.http.cursors import SuppressionCursor, suppression_cursor
from birthday.http.ids import read_id
from birthday.http.json_response import json_response
from birthday.http.kinds import OUTDATED, UNKNOWN_USER
from birthday.http.people import note_suppressed, note_unsuppressed
from birthday.http.route import Answer, Route
from birthday.operations.suppressions import MAX_REASON, REASON_PATTERN, check_reason, suppress_user, unsuppress_user
from birthday.store import suppressions as store
from birthday.store.connection import borrow
from birthday.store.suppressions import FIRST, list_suppressions

DEFAULT_REASON: Final = "asked for through the API"


def _check_reason(value: object) -> str:
    check_reason(value)
    return str(value)


_Reason = Annotated[
    str,
    PlainValidator(_check_reason),
    WithJsonSchema({"type": "string", "maxLength": MAX_REASON, "pattern": REASON_PATTERN}),
]


class SuppressionInput(Input):
    """Why a user is suppressed."""

    model_config = example({"reason": "asked by phone"})

    reason: _Reason = Field(
        default=DEFAULT_REASON, description="Why, as one line of text.", examples=["asked by phone"]
    )


class Suppression(Output):
    """An entry of the list of suppressed addresses."""

    address_hash: str = Field(description="Salted hash of the e-mail address; the list has no addresses.")
    reason: str
    created_at: Instant = Field(description="When the address was put on the list.")
    created_by: str = Field(
        description="`api:` and the name of a key, an operator, `link` (an unsubscribe link), or `user` (the "
        "`suppressed` of a user was written)."
    )


class SuppressionPage(Output):
    """A page of the list of suppressed addresses, newest first."""

    suppressions: list[Suppression] = Field(max_length=MAX_LIMIT)
    next_cursor: NextCursor


class SuppressionQuery(Input):
    """Which part of the list is asked for."""

    limit: Limit = DEFAULT_LIMIT
    cursor: SuppressionCursor = None


async def put(request: web.Request, body: SuppressionInput) -> web.Response:
    """Suppress a user; what is pending is cancelled. If the user is suppressed already, the first reason stays.

    `If-Match` takes the tag of the user.
    """
    context = request.app[CONTEXT]
    user_id, now, by = read_id(request, "user"), context.clock.now(), actor_of(request)
    check = partial(check_state, request, user_id, now)
    entry, changed = await suppress_user(context.pool, user_id, body.reason, now, by, check)
    note_suppressed(context, by, user_id, changed)
    return json_response(entry_answer(entry), headers=None if changed.addresses else UNCHANGED)


async def delete(request: web.Request) -> web.Response:
    """Take a user's address off the list, if it is there: the user is greeted again.

    `If-Match` takes the tag of the user.
    """
    context = request.app[CONTEXT]
    user_id, now = read_id(request, "user"), context.clock.now()
    check = partial(check_state, request, user_id, now)
    changed = await unsuppress_user(context.pool, user_id, now, actor_of(request), check)
    note_unsuppressed(user_id, changed)
    return web.Response(status=204)


async def list_page(request: web.Request, query: SuppressionQuery) -> web.Response:
    """Return a page of the list of suppressed addresses, as hashes, newest first."""
    async with borrow(request.app[CONTEXT].pool) as connection:
        entries = await list_suppressions(connection, query.cursor or FIRST, query.limit + 1)
    page = entries[: query.limit]
    cursor = suppression_cursor(page[-1]) if len(entries) > query.limit else None
    answer = SuppressionPage(suppressions=[entry_answer(entry) for entry in page], next_cursor=cursor)
    return page_response(request, answer, cursor)


def entry_answer(entry: store.Suppression) -> Suppression:
    """Return an entry as the API answers it."""
    return Suppression(
        address_hash=entry.address_hash.hex(),
        reason=entry.reason,
        created_at=entry.created_at,
        created_by=entry.created_by,
    )


ROUTES: Final = (
    Route(
        "PUT",
        "/users/{id}/suppression",
        Scope.WRITE,
        put,
        "suppressUser",
        Answer(
            "The entry of the list. If there was one already, it has stayed as it was.",
            Suppression,
            optional_headers={"X-Unchanged": "true if there was an entry already: its first reason has stayed."},
        ),
        (UNKNOWN_USER, OUTDATED),
    ),
    Route(
        "DELETE",
        "/users/{id}/suppression",
        Scope.WRITE,
        delete,
        "unsuppressUser",
        Answer("The address is not on the list any more.", status=204),
        (UNKNOWN_USER, OUTDATED),
    ),
    Route(
        "GET",
        "/suppressions",
        Scope.READ,
        list_page,
        "listSuppressions",
        Answer("A page of the list.", SuppressionPage),
    ),
)
