"""Who changed what: the list of changes."""

from typing import Annotated, Any, Final
from uuid import UUID

from aiohttp import web
from pydantic import AliasPath, Field, PlainValidator, WithJsonSchema

from birthday.config import Scope
from birthday.http.api.parameters import DEFAULT_LIMIT, MAX_LIMIT, From, Input, Instant, Limit, NextCursor, Output, To
from birthday.http.api.responses import page_response
from birthday.http.context import CONTEXT
from birthday.http.cursors import ChangeCursor, change_cursor
from birthday.http.route import Answer, Route
from birthday.store.changes import ENTITIES, ChangeFilter, list_changes
from birthday.store.connection import borrow

_MAX_TEXT: Final = 200


def _check_entity(value: object) -> str:
    if value not in ENTITIES:
        raise ValueError(f"one of {', '.join(ENTITIES)} is accepted")
    return str(value)


def _check_text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT or "\0" in value:
        raise ValueError(f"a text of 1 to {_MAX_TEXT} characters is accepted")
    return value


_Entity = Annotated[
    str | None, PlainValidator(_check_entity), WithJsonSchema({"type": "string", "enum": list(ENTITIES)})
]
_Text = Annotated[
    str | None,
    PlainValidator(_check_text),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _MAX_TEXT, "pattern": "^[^\\x00]+$"}),
]


class Change(Output):
    """What somebody did."""

    id: UUID
    at: Instant
    actor: str = Field(
        validation_alias=AliasPath("change", "actor"),
        description="Who: `api:` and the name of the key, `api` without keys, `cli:` and the account, or `link`.",
        examples=["api:crm"],
    )
    action: str = Field(
        validation_alias=AliasPath("change", "action"), description="What was done.", examples=["changed"]
    )
    entity: str = Field(
        validation_alias=AliasPath("change", "entity"),
        description=f"What it was done to: one of {', '.join(ENTITIES)}.",
        examples=["user"],
    )
    entity_id: str = Field(
        validation_alias=AliasPath("change", "entity_id"),
        description="The id of a user, message or key; the name of a template or message type; the hash of an address. "
        "Empty for an import, which is one change for each batch of users.",
    )
    before: dict[str, Any] | None = Field(
        validation_alias=AliasPath("change", "before"),
        description="The values that changed, as they were. Null if there were none, or the person has been erased.",
    )
    after: dict[str, Any] | None = Field(
        validation_alias=AliasPath("change", "after"),
        description="The same values as they became. Null if there are none: a new user is as it was created until the "
        "first change.",
    )
    request_id: str | None = Field(
        validation_alias=AliasPath("change", "request_id"),
        description="The X-Request-ID of the request, if it was one.",
    )


class ChangePage(Output):
    """A page of changes, newest first."""

    changes: list[Change] = Field(max_length=MAX_LIMIT)
    next_cursor: NextCursor


class ChangeQuery(Input):
    """Which changes a list has."""

    entity: _Entity = Field(default=None, description="Only changes of this kind of thing.")
    entity_id: _Text = Field(default=None, description="Only changes of what has this id.")
    actor: _Text = Field(default=None, description="Only changes by this actor.")
    since: From = Field(default=None, alias="from", description="Only changes at this instant or later.")
    until: To = Field(
        default=None, alias="to", description="Only changes before this instant; a date is taken up to its end, UTC."
    )
    limit: Limit = DEFAULT_LIMIT
    cursor: ChangeCursor = None


async def list_page(request: web.Request, query: ChangeQuery) -> web.Response:
    """Return a page of the record of changes, newest first. It is kept for the time that RETENTION_DAYS sets."""
    wanted = ChangeFilter(query.entity, query.entity_id, query.actor, query.since, query.until)
    async with borrow(request.app[CONTEXT].pool) as connection:
        found = await list_changes(connection, wanted, query.cursor, query.limit + 1)
    page = found[: query.limit]
    cursor = change_cursor(page[-1].id) if len(found) > query.limit else None
    return page_response(request, ChangePage(changes=page, next_cursor=cursor), cursor)


ROUTES: Final = (
    Route("GET", "/changes", Scope.ADMIN, list_page, "listChanges", Answer("A page of changes.", ChangePage)),
)
