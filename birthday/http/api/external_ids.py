"""Users by the customer's own ids, the external ids: one call makes a user what the customer knows of them."""

import re
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Annotated, Final
from uuid import UUID

from aiohttp import web

from birthday.config import Scope
from birthday.core.fields import EXTERNAL_ID_PATTERN, MAX_EXTERNAL_ID
from birthday.core.user import Profile, parse_replacement, patch_profile
from birthday.errors import ConflictError, FieldError, InvalidInputError, NotFoundError
from birthday.http.api.user_models import ProfileChanges, ProfileReplacement, User, user_json
from birthday.http.api.users import CHANGED, UNCHANGED, change_user, create_user, delete_user
from birthday.http.conditional import check_condition, has_condition, tagged
from birthday.http.context import CONTEXT, READING, SUBJECT
from birthday.http.json_response import json_bytes, json_response
from birthday.http.kinds import CONFLICT, EMAIL_TAKEN, EXTERNAL_ID_TAKEN, INVALID_PARAMETER, OUTDATED, UNKNOWN_USER
from birthday.http.route import JSON, MERGE_PATCH, Answer, Route
from birthday.store.connection import borrow
from birthday.store.users import find_user, is_other

_TRIES: Final = 5
"""How often the user may be created, deleted or given another id by somebody else while one request is answered."""


async def read(request: web.Request) -> web.Response:
    """Return one user."""
    user = await request.app[READING].ask(await _find(request))
    request[SUBJECT] = str(user.id)
    return json_response(user_json(user))


async def put(request: web.Request, body: Annotated[object, ProfileReplacement]) -> web.Response:
    """Make the user of this externalId what the body says: create, replace, or leave as it is.

    The same request again has no further effect. The body may leave `externalId` out; otherwise it must be equal. If
    another user has the e-mail address, the answer is 409.
    """
    external_id = request.match_info["externalId"]
    if not _is_external_id(external_id):
        detail = f"at most {MAX_EXTERNAL_ID} visible characters, with blanks between them, are accepted"
        raise InvalidInputError(FieldError("", detail, "externalId"))
    data = _with_external_id(body, external_id)
    for _ in range(_TRIES):
        try:
            user_id = await _find(request)
        except NotFoundError:
            answer = await _create(request, external_id, data)
        else:
            answer = await _replace(request, user_id, data)
        if answer is not None:
            return answer
    raise ConflictError("others create and delete this user at the same time: try again", "/externalId")


async def patch(request: web.Request, body: Annotated[object, ProfileChanges]) -> web.Response:
    """Change the members of a user's profile that are given; a moved birthday or zone moves the message."""

    def patched(old: Profile, now: datetime) -> Profile:
        _check_is_named(request, old)
        return patch_profile(old, body, now)

    return await change_user(request, await _find(request), patched)


async def delete(request: web.Request) -> web.Response:
    """Delete a user and cancel the pending messages. The externalId is free then."""
    return await delete_user(request, await _find(request), partial(_check_is_named, request))


async def _create(request: web.Request, external_id: str, data: object) -> web.Response | None:
    """Create the user, and answer; None if somebody else has done so meanwhile."""
    now = request.app[CONTEXT].clock.now()
    profile = parse_replacement(None, data, now)
    if has_condition(request):
        check_condition(request, None)
    try:
        return await create_user(request, profile, now)
    except ConflictError:
        # One of two equal requests finds that the other has the address, too.
        async with borrow(request.app[CONTEXT].pool) as connection:
            if await find_user(connection, external_id) is None:
                raise
        return None


async def _replace(request: web.Request, user_id: UUID, data: object) -> web.Response | None:
    """Replace the user, unless nothing differs, and answer; None if the user has been deleted meanwhile."""

    def replacement(old: Profile, now: datetime) -> Profile:
        _check_is_named(request, old)
        return parse_replacement(old, data, now)

    with suppress(NotFoundError):
        user = await request.app[READING].ask(user_id)
        if is_other(user.profile, replacement(user.profile, request.app[CONTEXT].clock.now())):
            return await change_user(request, user_id, replacement)
        members = user_json(user)
        if has_condition(request):
            check_condition(request, json_bytes(members))
        request[SUBJECT] = str(user_id)
        return tagged(json_response(members, headers=UNCHANGED))
    return None


async def _find(request: web.Request) -> UUID:
    """Return the id of the user whom the path names.

    Raises:
        NotFoundError: if there is no such user.
    """
    external_id = request.match_info["externalId"]
    if _is_external_id(external_id):
        async with borrow(request.app[CONTEXT].pool) as connection:
            found = await find_user(connection, external_id)
        if found is not None:
            return found
    raise _unknown()


def _check_is_named(request: web.Request, profile: Profile) -> None:
    """Refuse a change of a user who has lost the externalId of the path since it was looked up."""
    if profile.extras.external_id != request.match_info["externalId"]:
        raise _unknown()


def _unknown() -> NotFoundError:
    return NotFoundError("there is no user with this externalId", UNKNOWN_USER.code)


def _is_external_id(text: str) -> bool:
    return len(text) <= MAX_EXTERNAL_ID and re.fullmatch(EXTERNAL_ID_PATTERN, text) is not None


def _with_external_id(body: object, external_id: str) -> object:
    if not isinstance(body, dict):
        return body
    given = body.get("externalId")
    if given is not None and given != external_id:
        raise InvalidInputError(FieldError("/externalId", "is not that of the path; the same, or none, is accepted"))
    return body | {"externalId": external_id}


_PATH: Final = "/users/by-external-id/{externalId}"
_USER: Final = Answer("The user.", User)
_TAKEN: Final = (EMAIL_TAKEN, EXTERNAL_ID_TAKEN)
_PUT: Final = (
    CHANGED,
    Answer("The user, who is new.", User, 201, headers={"Location": "Where the user is."}),
)

ROUTES: Final = (
    Route("GET", _PATH, Scope.READ, read, "readUserByExternalId", _USER, (UNKNOWN_USER,)),
    Route(
        "PUT",
        _PATH,
        Scope.WRITE,
        put,
        "putUserByExternalId",
        _PUT,
        (OUTDATED, INVALID_PARAMETER, CONFLICT, *_TAKEN),
    ),
    Route(
        "PATCH",
        _PATH,
        Scope.WRITE,
        patch,
        "changeUserByExternalId",
        CHANGED,
        (UNKNOWN_USER, OUTDATED, *_TAKEN),
        takes=(JSON, MERGE_PATCH),
    ),
    Route(
        "DELETE",
        _PATH,
        Scope.WRITE,
        delete,
        "deleteUserByExternalId",
        Answer("Done.", status=204),
        (UNKNOWN_USER, OUTDATED),
    ),
)
