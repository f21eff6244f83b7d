"""Activity: who changed what, when and from where, and what it was before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
from aiohttp import web

from birthday.config import Scope
from birthday.errors import FieldError, InvalidInputError
from birthday.http.console.fields import address, given_fields, read, read_instant
from birthday.http.console.privacy import note_viewed
from birthday.http.console.rendering import page
from birthday.http.console.view import ROOT, View
from birthday.http.context import CONTEXT
from birthday.store.changes import ENTITIES, KEY, MESSAGE, USER, ChangeFilter, Recorded, list_changes
from birthday.store.connection import borrow

PATH: Final = f"{ROOT}/activity"
ROWS: Final = 50
_FIELDS: Final = ("entity", "id", "actor", "from", "to", "views")
_SHORT: Final = 24
_LISTED: Final = 5
"""How many entries of a list are shown."""
_PAGES: Final = {USER: f"{ROOT}/users/", MESSAGE: f"{ROOT}/messages/"}
_WHERE: Final = {"api": "API", "console": "console", "link": "link in a message"}


@dataclass(frozen=True, slots=True)
class _Row:
    """One change as it is shown: ``who`` did it ``where``, and each value before and after."""

    recorded: Recorded
    who: str
    where: str
    link: str
    values: Sequence[tuple[str, str | None, str | None]]

    @property
    def short_id(self) -> str:
        """The id of what was changed, or the end of a long one."""
        whole = self.recorded.change.entity_id
        return whole if len(whole) <= _SHORT else f"…{whole[-12:]}"


async def activity(request: web.Request) -> web.StreamResponse:
    """Show a page of changes, newest first."""
    fields = given_fields(request.query, *_FIELDS)
    if fields.get("entity", USER) not in ENTITIES:
        raise InvalidInputError(FieldError("", f"one of {', '.join(ENTITIES)} is accepted", "entity"))
    from_at, to_at = read_instant(fields, "from"), read_instant(fields, "to", is_end=True)
    wanted = ChangeFilter(
        fields.get("entity"), fields.get("id"), fields.get("actor"), from_at, to_at, views="views" in fields
    )
    before = read(request.query, "before", UUID, "the link to the next page has it")
    async with borrow(request.app[CONTEXT].pool) as connection:
        found = await list_changes(connection, wanted, before, ROWS + 1)
    shown = [_row(one) for one in found[:ROWS]]
    persons = {row.recorded.change.entity_id for row in shown if row.values and row.recorded.change.entity == USER}
    await note_viewed(request, persons)
    return page(
        request,
        "activity.html",
        title="Activity",
        rows=shown,
        given={name: fields.get(name, "") for name in _FIELDS},
        entities=ENTITIES,
        path=PATH,
        beginning=None if before is None else address(PATH, fields),
        following=address(PATH, {**fields, "before": str(shown[-1].recorded.id)}) if len(found) > ROWS else None,
    )


def _row(recorded: Recorded) -> _Row:
    change = recorded.change
    via, _, name = change.actor.partition(":")
    who, where = name or "somebody", _WHERE.get(via, via)
    if via == "cli":
        who, _, host = name.rpartition("@")
        where = f"command line on {host}"
    return _Row(recorded, who, where, _page_of(change.entity, change.entity_id), _values(change.before, change.after))


def _page_of(entity: str, entity_id: str) -> str:
    """Return the address of what was changed; empty if it has no page."""
    if entity == KEY:
        return f"{ROOT}/settings/keys"
    try:
        return f"{_PAGES[entity]}{UUID(entity_id)}"
    except (KeyError, ValueError):
        return ""


def _values(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None
) -> list[tuple[str, str | None, str | None]]:
    old, new = before or {}, after or {}
    return [(name, _text(old.get(name)), _text(new.get(name))) for name in {**old, **new}]


def _text(value: object) -> str | None:
    """Return a value as text; None if there is none."""
    if isinstance(value, list) and len(value) > _LISTED:
        return f"{', '.join(str(one) for one in value[:_LISTED])} and {len(value) - _LISTED} more"
    return value if isinstance(value, str) or value is None else orjson.dumps(value).decode()


VIEWS: Final = (View("GET", "/activity", Scope.ADMIN, activity, nav="Activity"),)
