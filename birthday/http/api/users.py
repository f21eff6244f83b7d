"""Users: create, read, list, replace, change, delete. The store plans messages when a user changes."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from aiohttp import web

from birthday.config import Scope
from birthday.core.ident import uuid7
from birthday.core.user import Profile, ProfileInput, parse_profile, parse_replacement, patch_profile, with_suppressed
from birthday.errors import ConflictError, NotFoundError, UnavailableError
from birthday.http.api.repeats import answer_of, keyed, once_by_itself
from birthday.http.api.responses import page_response
from birthday.http.api.user_models import (
    Explained,
    ExplainQuery,
    ProfileChanges,
    ProfileReplacement,
    User,
    UserPage,
    UserQuery,
    user_json,
)
from birthday.http.conditional import check_condition, has_condition, tagged
from birthday.http.context import CONTEXT, CREATION, READING, SUBJECT, ApiContext, actor_of
from birthday.http.ids import read_id
from birthday.http.json_response import json_bytes, json_response
from birthday.http.kinds import EMAIL_TAKEN, EXTERNAL_ID_TAKEN, OUTDATED, UNKNOWN_USER
from birthday.http.people import name_taken, note_changed, note_created, note_deleted, read_page
from birthday.http.route import JSON, MERGE_PATCH, Answer, Route
from birthday.operations.explain import Explainer
from birthday.store import users as store
from birthday.store.connection import Connection, borrow
from birthday.store.creation import plan_user
from birthday.store.users import (
    Replanned,
    is_other,
    lock_profile,
    read_users,
    remove_user,
    replace_profile,
    unknown_user,
)

UNCHANGED: Final = {"X-Unchanged": "true"}
"""Of the answer to a change that changes nothing."""


async def create(request: web.Request, body: Annotated[object, ProfileInput]) -> web.Response:
    """Create a user; messages that fall due soon are planned at once."""
    now = request.app[CONTEXT].clock.now()
    return await create_user(request, parse_profile(body, now), now)


async def create_user(request: web.Request, profile: Profile, now: datetime) -> web.Response:
    """Store a new user, and answer."""
    app = request.app
    context = app[CONTEXT]
    new = plan_user(uuid7(now), profile, now, context.planning, actor_of(request), context.tracing.traceparent())
    key = keyed(request)
    if key is not None:
        new = new._replace(answer=lambda user: (key, answer_of(_created(user, str(user.id)), user.id)))
    try:
        user = await app[CREATION].ask(new)
    except UnavailableError as error:
        if error.maybe_done:
            context.doubts.note(new.user.profile, new.user.id)
        raise
    except ConflictError as error:
        found = None if key else await _created_before(request, new.user.profile)
        if found is None:
            await name_taken(context, error)
            raise
        user = found
    note_created(context, new, user)
    request[SUBJECT] = user_id = str(user.id)
    return _created(user, user_id)


def _created(user: store.User, user_id: str) -> web.Response:
    return tagged(json_response(user_json(user), 201, {"Location": f"/users/{user_id}"}))


async def _created_before(request: web.Request, profile: Profile) -> store.User | None:
    """Return the user whom an earlier request with the same ``profile`` created, if its answer was lost."""
    user_id = request.app[CONTEXT].doubts.find(profile)
    if user_id is not None:
        with suppress(NotFoundError):
            user = await request.app[READING].ask(user_id)
            # The list of suppressed addresses may have decided otherwise.
            if user.profile == with_suppressed(profile, suppressed=user.profile.extras.suppressed):
                return user
    return None


async def read(request: web.Request) -> web.Response:
    """Return one user."""
    return json_response(user_json(await request.app[READING].ask(read_id(request, "user"))))


async def read_all(
    context: ApiContext, ids: Sequence[UUID], seconds: float, _lock_seconds: float | None
) -> Sequence[store.User | NotFoundError]:
    """Read the users of concurrent requests. This waits for no lock."""
    async with borrow(context.pool, seconds) as connection:
        users = await read_users(connection, ids, context.clock.now(), context.settings.rules)
    found = {user.id: user for user in users}
    return [found.get(user_id) or unknown_user(user_id) for user_id in ids]


async def list_page(request: web.Request, query: UserQuery) -> web.Response:
    """Return a page of users in order of creation; some filters have an order of their own.

    A cursor belongs to the list of the page that it came with. A page neither skips nor repeats users who stay in the
    list, whoever else is created, changed or deleted meanwhile.
    """
    users, cursor = await read_page(request.app[CONTEXT], query.wanted(), query.cursor, query.limit)
    answer = {"users": [user_json(user) for user in users], "nextCursor": cursor}
    # The cursor has the name as well, and hides it.
    return page_response(request, answer, cursor, without=("name",))


async def replace(request: web.Request, body: Annotated[object, ProfileReplacement]) -> web.Response:
    """Replace a user's profile as a whole; a moved birthday or zone moves the message."""
    return await change_user(request, read_id(request, "user"), lambda old, now: parse_replacement(old, body, now))


async def patch(request: web.Request, body: Annotated[object, ProfileChanges]) -> web.Response:
    """Change the members of a user's profile that are given; a moved birthday or zone moves the message."""
    return await change_user(request, read_id(request, "user"), lambda old, now: patch_profile(old, body, now))


async def delete(request: web.Request) -> web.Response:
    """Delete a user and cancel the pending messages; the profile is kept for RETENTION_DAYS, unless it is erased."""
    return await delete_user(request, read_id(request, "user"))


async def delete_user(
    request: web.Request, user_id: UUID, check: Callable[[Profile], None] | None = None
) -> web.Response:
    """Delete a user whose profile passes ``check``, which may raise, and answer."""
    context = request.app[CONTEXT]
    now = context.clock.now()
    async with borrow(context.pool) as connection, connection.transaction():
        if check is not None or has_condition(request):
            profile = await lock_profile(connection, user_id)
            if check is not None:
                check(profile)
            await check_state(request, user_id, now, connection)
        cancelled = await remove_user(connection, user_id, now, actor_of(request))
    note_deleted(context, user_id, cancelled)
    return web.Response(status=204)


async def explain(request: web.Request, query: ExplainQuery) -> web.Response:
    """Explain what came of a user's occasions of a year; deleted users too, until retention removes them."""
    context, user_id = request.app[CONTEXT], read_id(request, "user")
    explainer = Explainer(context.pool, context.planning, context.settings.catch_up_window)
    try:
        explained = await explainer.explain(str(user_id), query.year, query.type, context.clock.now())
    except NotFoundError:
        # Its own text is for an operator, who may also name an address.
        raise unknown_user(user_id) from None
    return json_response(Explained.model_validate(explained))


async def change_user(
    request: web.Request, user_id: UUID, change: Callable[[Profile, datetime], Profile]
) -> web.Response:
    """Apply ``change`` to a profile in one transaction, and answer. Other changes of the same user wait for it.

    If nothing differs, the user stays as it is, with its tag, and no change is recorded.
    """
    context = request.app[CONTEXT]
    try:
        async with borrow(context.pool) as connection, connection.transaction():
            old = await lock_profile(connection, user_id)
            now = context.clock.now()
            # Before the condition, which counts only for a request that is right otherwise (RFC 9110, 13.2.1).
            new, traceparent = change(old, now), context.tracing.traceparent()
            await check_state(request, user_id, now, connection)
            differs, by, replanned = is_other(old, new), actor_of(request), Replanned()
            if differs:
                replanned = await replace_profile(connection, user_id, old, new, now, context.planning, by, traceparent)
            [user] = await read_users(connection, [user_id], now, context.settings.rules)
    except ConflictError as error:
        await name_taken(context, error)
        raise
    note_changed(context, by, old, user, replanned)
    request[SUBJECT] = str(user_id)
    return tagged(json_response(user_json(user), headers=None if differs else UNCHANGED))


async def check_state(request: web.Request, user_id: UUID, now: datetime, connection: Connection) -> None:
    """Check the condition of a change, if it has one, while the user's row is held."""
    if has_condition(request):
        check_condition(request, await state_of(request, user_id, now, connection))


async def state_of(request: web.Request, user_id: UUID, now: datetime, connection: Connection) -> bytes | None:
    """Return a user as reading answers; None if there is no such live user."""
    users = await read_users(connection, [user_id], now, request.app[CONTEXT].settings.rules)
    return json_bytes(user_json(users[0])) if users else None


# Not what has a path of its own: otherwise another method there would be 404 instead of 405.
_ONE: Final = "/users/{id:(?!import$|export$)[^/]+}"
_USER: Final = Answer("The user.", User)
CHANGED: Final = Answer(
    "The user.", User, optional_headers={"X-Unchanged": "true if nothing was changed, because nothing differs."}
)
_TAKEN: Final = (EMAIL_TAKEN, EXTERNAL_ID_TAKEN)
_CREATED: Final = Answer(
    "The user.",
    User,
    201,
    headers={"Location": "Where the user is.", "ETag": "The tag of this state, for If-Match and If-None-Match."},
    links=("readUser", "replaceUser", "changeUser", "deleteUser", "listMessagesOfUser"),
)

ROUTES: Final = (
    Route("POST", "/users", Scope.WRITE, create, "createUser", _CREATED, _TAKEN, repeats=once_by_itself),
    Route("GET", "/users", Scope.READ, list_page, "listUsers", Answer("A page of users.", UserPage)),
    Route("GET", _ONE, Scope.READ, read, "readUser", _USER, (UNKNOWN_USER,)),
    Route("PUT", _ONE, Scope.WRITE, replace, "replaceUser", CHANGED, (UNKNOWN_USER, OUTDATED, *_TAKEN)),
    Route(
        "PATCH",
        _ONE,
        Scope.WRITE,
        patch,
        "changeUser",
        CHANGED,
        (UNKNOWN_USER, OUTDATED, *_TAKEN),
        takes=(JSON, MERGE_PATCH),
    ),
    Route(
        "DELETE",
        _ONE,
        Scope.WRITE,
        delete,
        "deleteUser",
        Answer("Done.", status=204),
        (UNKNOWN_USER, OUTDATED),
    ),
    Route(
        "GET",
        "/users/{id}/explain",
        Scope.READ,
        explain,
        "explainUser",
        Answer("The reason for each occasion.", Explained),
        (UNKNOWN_USER,),
    ),
)
