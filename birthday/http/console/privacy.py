"""The record of who has seen whose personal data in full."""

from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

from aiohttp import web

from birthday.config import Scope
from birthday.http.console.view import CONSOLE, VISITOR, actor_of, can, is_refresh, now
from birthday.http.context import CONTEXT
from birthday.store.changes import USER, VIEWED, record_changes
from birthday.store.connection import borrow

SEVERAL: Final = "several"
"""Stands for the id where a list was seen; the record has all ids."""
_AGAIN_AFTER: Final = timedelta(minutes=10)
_MOST_REMEMBERED: Final = 1000


async def note_viewed(request: web.Request, ids: Collection[UUID | str], entity: str = USER) -> None:
    """Record that the visitor sees these persons, or their messages, in full: one record, without any personal data.

    Visitors who see masks only leave no record. If an open page is refreshed and still shows the same, it is recorded
    again after ten minutes only.

    Raises:
        UnavailableError: if the database cannot be used: then nothing may be shown.
    """
    if not ids or not can(request, Scope.WRITE):
        return
    at, viewed = now(request), request.app[CONSOLE].viewed
    shown = sorted(str(one) for one in ids)
    seen = (request[VISITOR].name, request.path, frozenset(shown))
    last = viewed.get(seen)
    if is_refresh(request) and last is not None and at - last < _AGAIN_AFTER:
        return
    change = (
        actor_of(request).change(VIEWED, entity, shown[0])
        if len(shown) == 1
        else actor_of(request).change(VIEWED, entity, SEVERAL, None, {"ids": shown})
    )
    async with borrow(request.app[CONTEXT].pool) as connection, connection.transaction():
        await record_changes(connection, [change], at)
    viewed.pop(seen, None)
    viewed[seen] = at
    if len(viewed) > _MOST_REMEMBERED:
        del viewed[next(iter(viewed))]
