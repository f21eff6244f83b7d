"""What is held on a person, and its erasure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from aiohttp import web
from pydantic import Field

from birthday.config import Scope
from birthday.http.api.changes import Change
from birthday.http.api.message_models import Message
from birthday.http.api.parameters import Instant, Output
from birthday.http.api.repeats import once, pool_of
from birthday.http.api.suppressions import Suppression, entry_answer
from birthday.http.api.user_models import User, user_json
from birthday.http.api.users import state_of
from birthday.http.conditional import check_condition, has_condition
from birthday.http.context import CONTEXT, ApiContext, actor_of
from birthday.http.ids import read_id
from birthday.http.json_response import json_response
from birthday.http.kinds import OUTDATED, UNKNOWN_USER
from birthday.http.people import note_erased
from birthday.http.route import Answer, Route
from birthday.store.connection import borrow
from birthday.store.persons import erase, hold_user, read_person


class StoredAnswer(Output):
    """The answer to a request with an Idempotency-Key, which is kept for a day."""

    created_at: Instant
    status: int
    body: str = Field(description="The body, as it was sent.")


class PersonData(Output):
    """Everything that is held on a person."""

    user: User
    deleted_at: Instant | None = Field(
        description="When the user was deleted. Retention removes the user RETENTION_DAYS later."
    )
    messages: list[Message] = Field(description="All messages, newest first.")
    suppression: Suppression | None = Field(description="The entry of the address on the list of suppressed ones.")
    greeted_years: dict[str, int] = Field(
        description="By type, the year in which an earlier user with the same address and date of birth was greeted.",
        examples=[{"birthday": 2026}],
    )
    changes: list[Change] = Field(description="All changes of the user and its opt-outs, the oldest first.")
    answers: list[StoredAnswer]


class Erased(Output):
    """What was removed. All counts are 0 if the person was erased before."""

    user_id: UUID
    profile: int = Field(description="1 if there was a user, live or deleted.")
    anniversaries: int = Field(description="How many other yearly dates were removed.")
    messages: int = Field(description="From how many messages the text of an error was removed.")
    changes: int = Field(description="From how many changes the values were removed.")
    answers: int = Field(description="How many stored answers were removed.")
    suppressions: int = Field(description="From how many entries of the list of suppressed addresses the reason was.")
    cancelled: int = Field(description="How many pending messages were cancelled.")
    given_up: int = Field(description="How many messages were being sent: they may arrive.")


async def read(request: web.Request) -> web.Response:
    """Return everything that is held on a person: also on a deleted user, until retention removes it."""
    return json_response(await read_held(request.app[CONTEXT], read_id(request, "user")))


async def read_held(context: ApiContext, user_id: UUID) -> dict[str, Any]:
    """Return the JSON members of ``PersonData``."""
    async with (
        borrow(context.pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        held = await read_person(connection, user_id, context.clock.now(), context.settings.rules)
    return {
        "user": user_json(held.user),
        "deletedAt": held.deleted_at,
        "messages": _dump(Message, held.messages),
        "suppression": held.suppression and entry_answer(held.suppression).model_dump(by_alias=True),
        "greetedYears": held.greeted_years,
        "changes": _dump(Change, held.changes),
        "answers": _dump(StoredAnswer, held.answers),
    }


def _dump(model: type[Output], some: Sequence[object]) -> list[dict[str, Any]]:
    return [model.model_validate(one).model_dump(by_alias=True) for one in some]


async def remove(request: web.Request) -> web.Response:
    """Erase a person, live or deleted, at once: profile, dates, texts of errors, changes and stored answers.

    What is pending is cancelled. Hashes stay, so that the person is not greeted twice in a year, and an opt-out holds.
    `If-Match` takes the tag of the user.
    """
    context, user_id = request.app[CONTEXT], read_id(request, "user")
    now = context.clock.now()
    async with borrow(pool_of(request)) as connection, connection.transaction():
        state = None
        if has_condition(request):
            await hold_user(connection, user_id)
            state = await state_of(request, user_id, now, connection)
        erased = await erase(connection, user_id, now, actor_of(request))
        # After what may be wrong otherwise (RFC 9110, 13.2.1): an error takes back what was done.
        check_condition(request, state)
    note_erased(context, user_id, erased)
    return json_response(Erased(user_id=user_id, **asdict(erased)))


ROUTES: Final = (
    Route(
        "GET",
        "/users/{id}/data",
        Scope.READ,
        read,
        "readUserData",
        Answer("What is held.", PersonData),
        (UNKNOWN_USER,),
    ),
    Route(
        "POST",
        "/users/{id}/erase",
        Scope.ADMIN,
        remove,
        "eraseUser",
        Answer("What was removed.", Erased),
        (UNKNOWN_USER, OUTDATED),
        repeats=once,
    ),
)
