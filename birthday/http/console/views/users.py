"""Users: find somebody, list users by filters, and add one."""

from typing import Final
from uuid import UUID

from aiohttp import web

from birthday.config import Scope
from birthday.core.ident import uuid7
from birthday.core.user import parse_profile
from birthday.core.zone import zone_names
from birthday.errors import ConflictError, InvalidInputError
from birthday.http.console.fields import address
from birthday.http.console.finding import FIELDS, count_users, find_deleted, find_place, read_filter
from birthday.http.console.forms import EDIT, confirm, done, is_confirmed, read_form
from birthday.http.console.privacy import note_viewed
from birthday.http.console.profiles import (
    errors_by_field,
    full_name,
    members_of,
    next_greetings,
    read_texts,
    texts_of,
)
from birthday.http.console.rendering import page, see_other
from birthday.http.console.view import ROOT, View, actor_of, now
from birthday.http.context import CONTEXT, CREATION
from birthday.http.cursors import read_user_cursor
from birthday.http.people import name_taken, note_created, read_page
from birthday.store.connection import borrow
from birthday.store.creation import NewUser, plan_user, rehearse_user
from birthday.store.listing import UserFilter
from birthday.store.users import User, find_user, read_users

PATH: Final = f"{ROOT}/users"
PAGE: Final = 50


async def users(request: web.Request) -> web.StreamResponse:
    """Show the users that search and filters mean; an id leads to its user or message."""
    context = request.app[CONTEXT]
    given = {name: request.query.get(name, "").strip() for name in FIELDS}
    wanted, errors = read_filter(given)
    shown: list[User] = []
    count = following = cursor = None
    try:
        cursor = read_user_cursor(request.query["cursor"]) if "cursor" in request.query else None
    except ValueError:
        # It is of no list of ours: the list begins again.
        return see_other(address(PATH, given))
    if not errors:
        async with borrow(context.pool) as connection:
            place = await find_place(connection, given["q"])
            if place is not None:
                return see_other(place)
            named = await find_user(connection, given["q"]) if given["q"] and cursor is None else None
            if named is not None:
                shown = await read_users(connection, [named], now(request), context.settings.rules)
            count = await count_users(connection, wanted) if cursor is None else None
        listed, following = await read_page(context, None if wanted == UserFilter() else wanted, cursor, PAGE)
        others = [user for user in listed if user.id != named]
        count = None if count is None else max(count, len(shown) + len(others))
        shown += others
        if given["q"] and not shown and cursor is None:
            async with borrow(context.pool) as connection:
                place = await find_deleted(connection, given["q"])
            if place is not None:
                return see_other(place)
    await note_viewed(request, [user.id for user in shown])
    return page(
        request,
        "users.html",
        title="Users",
        given=given,
        errors=errors,
        users=shown,
        count=count,
        first=address(PATH, given) if cursor else None,
        following=following and address(PATH, {**given, "cursor": following}),
        zones=sorted(zone_names()),
    )


async def new(request: web.Request) -> web.Response:
    """Show the form of a new user."""
    return _form(request, texts_of(None), {})


async def add(request: web.Request) -> web.Response:
    """Add a user; ask first, and tell when the first greeting is due."""
    context, form, at = request.app[CONTEXT], await read_form(request), now(request)
    texts = read_texts(form)
    if EDIT in form:
        return _form(request, texts, {})
    try:
        profile = parse_profile(members_of(texts), at)
        planned = plan_user(uuid7(at), profile, at, context.planning, actor_of(request), context.tracing.traceparent())
        if await is_confirmed(request):
            user = await _create(request, planned)
            return done(request, f"{PATH}/{user.id}", "The user was added.")
        user = await rehearse_user(context.pool, planned)
    except InvalidInputError as error:
        return _form(request, texts, errors_by_field(error))
    except ConflictError as error:
        await name_taken(context, error)
        return _form(request, texts, errors_by_field(error), error.existing_id)
    name = full_name(profile)
    facts = [("Name", name), ("E-mail", profile.email), *next_greetings(user, at)]
    return confirm(request, f"Add {name}?", action="add this user", fields=texts, facts=facts, back=None)


async def _create(request: web.Request, planned: NewUser) -> User:
    user: User = await request.app[CREATION].ask(planned)
    note_created(request.app[CONTEXT], planned, user)
    return user


def _form(
    request: web.Request, texts: dict[str, str], errors: dict[str, str], taken_by: UUID | None = None
) -> web.Response:
    return page(
        request,
        "user_new.html",
        title="Add a user",
        texts=texts,
        errors=errors,
        taken_by=taken_by,
        zones=sorted(zone_names()),
    )


VIEWS: Final = (
    View("GET", "/users", Scope.READ, users, nav="Users"),
    View("GET", "/users/new", Scope.WRITE, new),
    View("POST", "/users/new", Scope.WRITE, add),
)
