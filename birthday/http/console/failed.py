"""Which failed messages a page means: by fields of its address or form, which are the options of ``birthday dlq``."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from aiohttp import web

from birthday.config import parse_duration
from birthday.core.message import ErrorType
from birthday.http.console.fields import address, given_fields, read, read_instant
from birthday.http.console.view import ROOT, now
from birthday.http.context import CONTEXT
from birthday.store.causes import Causes, count_causes
from birthday.store.connection import borrow
from birthday.store.failed import FailedFilter

PATH: Final = f"{ROOT}/failures"
UNTIL: Final = "until"
"""The field with the instant of the page that asks before a change. What fails later is not concerned."""
FIELDS: Final = ("error", "status", "detail", "type", "user", "id", "newer", "older", UNTIL)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which failed messages are meant, and by which fields; ``asked_at`` is the instant that ages count from."""

    wanted: FailedFilter
    fields: Mapping[str, str]
    asked_at: datetime

    @property
    def page(self) -> str:
        """The address of the list of them."""
        return address(PATH, {**self.fields, UNTIL: None})

    @property
    def fixed(self) -> dict[str, str]:
        """The fields of a change: they mean only what has failed until it is asked for."""
        return {**self.fields, UNTIL: self.asked_at.isoformat()}


def choose(request: web.Request, given: Mapping[str, str]) -> Choice:
    """Read which failed messages are meant.

    Raises:
        InvalidInputError: if a field is not accepted.
    """
    fields = given_fields(given, *FIELDS)
    until = read_instant(fields, UNTIL)
    asked_at = until or now(request)
    age = "a duration such as 30m, 24h or 7d is accepted"
    newer, older = (read(fields, name, parse_duration, age) for name in ("newer", "older"))
    wanted = FailedFilter(
        error_type=read(fields, "error", ErrorType, f"one of {', '.join(ErrorType)} is accepted"),
        user_id=read(fields, "user", UUID, "the id of a user is accepted"),
        failed_from=None if newer is None else asked_at - newer,
        failed_before=until if older is None else asked_at - older,
        message_id=read(fields, "id", UUID, "the id of a message is accepted"),
        http_status=read(fields, "status", _parse_status, "a status from 100 to 599 is accepted"),
        message_type=fields.get("type"),
        detail=fields.get("detail"),
    )
    return Choice(wanted, fields, asked_at)


async def count(request: web.Request, choice: Choice) -> Causes:
    """Count the failed messages that are meant."""
    async with borrow(request.app[CONTEXT].pool) as connection:
        return await count_causes(connection, choice.wanted)


def _parse_status(text: str) -> int:
    status = int(text)
    if not 100 <= status <= 599:
        raise ValueError(text)
    return status
