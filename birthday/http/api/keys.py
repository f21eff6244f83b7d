"""API keys: list, make, rotate and revoke them. A key is in one answer only."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from birthday.config import Scope
from birthday.errors import NotFoundError
from birthday.http.api.parameters import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Flag,
    From,
    Input,
    Instant,
    Limit,
    NextCursor,
    Output,
    example,
)
from birthday.http.api.repeats import commit_answer, once, pool_of
from birthday.http.api.responses import page_response
from birthday.http.context import CLIENT, CONTEXT, SUBJECT, actor_of
from birthday.http.cursors import KeyCursor, key_cursor
from birthday.http.json_response import json_response
from birthday.http.keys import find_key
from birthday.http.kinds import CONFLICT, MISSING_SCOPE, UNKNOWN_KEY_ID
from birthday.http.route import Answer, Route
from birthday.operations.keys import (
    ID_PATTERN,
    NAME_PATTERN,
    OVERLAP,
    NewKey,
    check_name,
    create_key,
    revoke_key,
    rotate_key,
)
from birthday.operations.templates.values import check_whole
from birthday.store.connection import borrow
from birthday.store.keys import StoredKey, list_keys

LONGEST_OVERLAP: Final = timedelta(days=90)

_Name = Annotated[str, PlainValidator(check_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
_Overlap = Annotated[int, Field(ge=0, le=int(LONGEST_OVERLAP.total_seconds())), BeforeValidator(check_whole)]


class KeyInput(Input):
    """A key to be made."""

    model_config = example({"name": "shop", "scope": "write", "expiresAt": "2099-01-01T00:00:00Z"})

    name: _Name = Field(description="Who the client is.", examples=["shop"])
    scope: Scope = Field(description="What the key may do; each scope includes the ones before it.")
    expires_at: From = Field(default=None, description="When it ends; never if not given.")


class RotationInput(Input):
    """How a key is rotated."""

    model_config = example({"overlapSeconds": 86400})

    overlap_seconds: _Overlap = Field(
        default=int(OVERLAP.total_seconds()), description="How long the older keys of the client still work."
    )


class Key(Output):
    """A key, without its secret."""

    id: str = Field(pattern=ID_PATTERN, description="The part of the key between its underscores.")
    name: str = Field(description="Who the client is.")
    scope: Scope
    state: Literal["active", "replaced", "ended", "revoked"] = Field(
        description="`replaced`: it works until its overlap is over."
    )
    created_at: Instant
    created_by: str
    expires_at: Instant | None
    replaced_at: Instant | None = Field(description="When it ends, or has ended, because of a rotation.")
    revoked_at: Instant | None
    last_used_at: Instant | None = Field(description="Written at most once a minute.")


class NewKeyAnswer(Key):
    """A key that was just made."""

    key: str | None = Field(
        description="What the client sends. It is in this answer only, and not stored: null in the answer to a "
        "repeated Idempotency-Key. If it was lost, rotate or revoke the key."
    )


class RevokedKey(Key):
    """A key that was just revoked."""

    is_own: bool = Field(description="Whether this request came with it: then the next one is refused.")


class KeyPage(Output):
    """A page of keys, the oldest first."""

    keys: list[Key] = Field(max_length=MAX_LIMIT)
    next_cursor: NextCursor


class KeyQuery(Input):
    """Which keys a list has."""

    all: Flag = Field(default=False, description="true: also keys that have ended.")
    limit: Limit = DEFAULT_LIMIT
    cursor: KeyCursor = None


async def list_page(request: web.Request, query: KeyQuery) -> web.Response:
    """Return a page of the keys in the database, without their secrets. Keys of API_KEYS are not among them."""
    context, limit = request.app[CONTEXT], query.limit
    now = context.clock.now()
    async with borrow(context.pool) as connection:
        keys = await list_keys(connection, None if query.all else now, query.cursor, limit + 1)
    cursor = key_cursor(keys[limit - 1]) if len(keys) > limit else None
    page = KeyPage(keys=[Key(**_members(key, now)) for key in keys[:limit]], next_cursor=cursor)
    return page_response(request, page, cursor)


async def create(request: web.Request, body: KeyInput) -> web.Response:
    """Make a key for a client. All processes know it within five seconds.

    It needs a key: the first one is made by `birthday keys create`, so that nobody who merely reaches the port of an
    API without keys can keep others out.
    """
    context = request.app[CONTEXT]
    if CLIENT not in request:
        raise web.HTTPForbidden(text="without a key none can be made here: 'birthday keys create' makes the first one")
    now = context.clock.now()
    new = await create_key(
        pool_of(request),
        body.name,
        body.scope,
        now,
        actor_of(request),
        expires_at=body.expires_at,
        configured=context.settings.api_keys,
    )
    return await _show_once(request, new, now)


async def rotate(request: web.Request, body: RotationInput) -> web.Response:
    """Make a new key for the client of a key. The older ones work beside it until the overlap is over."""
    now = request.app[CONTEXT].clock.now()
    overlap = timedelta(seconds=body.overlap_seconds)
    new = await rotate_key(pool_of(request), _read_id(request), now, actor_of(request), overlap)
    return await _show_once(request, new, now)


async def revoke(request: web.Request) -> web.Response:
    """End a key at once. No process accepts it in five seconds from now."""
    context = request.app[CONTEXT]
    now = context.clock.now()
    key_id = _read_id(request)
    own = find_key(context.keys, request, now)
    [key] = await revoke_key(context.pool, key_id, now, actor_of(request))
    is_own = own is not None and own.stored is not None and own.stored.id == key_id
    return json_response(RevokedKey(**_members(key, now), is_own=is_own))


def _read_id(request: web.Request) -> str:
    key_id = request.match_info["keyId"]
    if not re.fullmatch(ID_PATTERN, key_id):
        raise NotFoundError("there is no key with this id: it is not 8 hex digits", UNKNOWN_KEY_ID.code)
    request[SUBJECT] = key_id
    return key_id


async def _show_once(request: web.Request, new: NewKey, now: datetime) -> web.Response:
    """Answer with a new key. What is stored for a repeated request lacks it."""
    members = _members(new.stored, now)
    await commit_answer(request, json_response(NewKeyAnswer(**members, key=None), 201))
    return json_response(NewKeyAnswer(**members, key=new.secret), 201)


def _members(key: StoredKey, now: datetime) -> dict[str, Any]:
    names = ("id", "name", "scope", "created_at", "created_by", "expires_at", "replaced_at", "revoked_at")
    return {name: getattr(key, name) for name in (*names, "last_used_at")} | {"state": key.state(now)}


ROUTES: Final = (
    Route("GET", "/keys", Scope.ADMIN, list_page, "listKeys", Answer("A page of keys.", KeyPage)),
    Route(
        "POST",
        "/keys",
        Scope.ADMIN,
        create,
        "createKey",
        Answer("The key, only now.", NewKeyAnswer, 201),
        (CONFLICT, MISSING_SCOPE),
        repeats=once,
    ),
    Route(
        "POST",
        "/keys/{keyId}/rotate",
        Scope.ADMIN,
        rotate,
        "rotateKey",
        Answer("The new key, only now.", NewKeyAnswer, 201),
        (UNKNOWN_KEY_ID,),
        repeats=once,
    ),
    Route(
        "DELETE",
        "/keys/{keyId}",
        Scope.ADMIN,
        revoke,
        "revokeKey",
        Answer("The key, which has ended.", RevokedKey),
        (UNKNOWN_KEY_ID,),
    ),
)
