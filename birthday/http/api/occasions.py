"""Whose day it is."""

import datetime as dt
from typing import Annotated, Final
from uuid import UUID

from aiohttp import web
from pydantic import BeforeValidator, Field, WithJsonSchema

from birthday.config import Scope
from birthday.core.dates import parse_date
from birthday.core.message import Status
from birthday.core.occasion import LAST_YEAR
from birthday.http.api.parameters import DEFAULT_LIMIT, MAX_LIMIT, Input, Instant, Limit, NextCursor, Output, Type
from birthday.http.api.responses import page_response
from birthday.http.context import CONTEXT
from birthday.http.cursors import PlaceCursor, place_cursor, read_place
from birthday.http.route import Answer, Route
from birthday.operations import occasions
from birthday.operations.occasions import FIRST, Position, list_occasions
from birthday.store.connection import borrow
from birthday.store.listing import Place, read_cursor_key

_ORDER: Final = "o"
_SEPARATOR: Final = "\n"


def _check_date(text: object) -> dt.date:
    day = parse_date(text)
    if not 1 < day.year <= LAST_YEAR:
        raise ValueError(f"a date from the year 2 to {LAST_YEAR} is accepted")
    return day


_Date = Annotated[
    dt.date,
    BeforeValidator(_check_date),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-03-01"]}),
]


class OccasionsQuery(Input):
    """Which occasions are listed."""

    date: _Date = Field(description="The date, as it is where each user lives.")
    type: Type = Field(default=None, description="Only those of this type; without it, all types that are planned.")
    limit: Limit = DEFAULT_LIMIT
    cursor: PlaceCursor = None


class OccasionOfUser(Output):
    """The occasion of one user on that date."""

    user_id: UUID
    first_name: str
    last_name: str
    type: str = Field(validation_alias="message_type", examples=["birthday"])
    years: int | None = Field(description="Age, or years of an anniversary; null if the year of birth is not known.")
    timezone: str = Field(description="IANA name or fixed offset.", examples=["Europe/London"])
    date: dt.date = Field(description="The local date that is greeted: the next one if the zone has skipped it.")
    due_at: Instant | None = Field(description="When its message is or was due; null if there is none.")
    message_id: UUID | None = Field(description="The message; null if none is planned yet, or none is kept.")
    status: Status | None = Field(description="The state of the message.")


class ZoneOccasions(Output):
    """The occasions of a zone."""

    timezone: str = Field(examples=["Europe/London"])
    date: dt.date = Field(description="The local date that is greeted.")
    due_at: Instant = Field(description="When messages are due there.")
    occasions: int = Field(description="How many occasions there are.")


class OccasionPage(Output):
    """A page of occasions, in order of zone."""

    occasions: list[OccasionOfUser] = Field(max_length=MAX_LIMIT)
    zones: list[ZoneOccasions] | None = Field(
        description="How many occasions each zone has, if it has any. Only on the first page; null on the others."
    )
    next_cursor: NextCursor


async def list_page(request: web.Request, query: OccasionsQuery) -> web.Response:
    """Return whose day it is on a date, by zone: users, when their messages are due, and what became of these."""
    context, limit = request.app[CONTEXT], query.limit
    async with borrow(context.pool, occasions.SECONDS) as connection:
        secret = await read_cursor_key(connection)
        after = _position(query.cursor, secret)
        found, zones = await list_occasions(
            connection, query.date, query.type, context.settings.rules, after, limit + 1
        )
    cursor = _cursor(found[limit - 1], secret) if len(found) > limit else None
    page = OccasionPage(
        occasions=[OccasionOfUser.model_validate(one) for one in found[:limit]],
        zones=None if zones is None else [ZoneOccasions.model_validate(one) for one in zones],
        next_cursor=cursor,
    )
    return page_response(request, page, cursor)


def _cursor(last: occasions.UserOccasion, secret: bytes) -> str:
    return place_cursor(Place(f"{last.timezone}{_SEPARATOR}{last.message_type}", last.user_id), _ORDER, secret)


def _position(packed: bytes | None, secret: bytes) -> Position:
    place = packed and read_place(packed, _ORDER, secret)
    if not place:
        return FIRST
    zone, _, message_type = place.key.partition(_SEPARATOR)
    return Position(zone, place.id, message_type)


ROUTES: Final = (
    Route("GET", "/occasions", Scope.READ, list_page, "listOccasions", Answer("A page of occasions.", OccasionPage)),
)
