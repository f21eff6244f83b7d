"""One user: what is known, what was and will be sent and why not, and all that can be changed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from aiohttp import hdrs, web

from birthday.config import Scope
from birthday.core.message import PENDING
from birthday.core.occasion import LAST_YEAR
from birthday.core.user import patch_profile
from birthday.core.zone import zone_names
from birthday.errors import ConflictError, InvalidInputError, NotFoundError
from birthday.http.console import plain
from birthday.http.console.forms import EDIT, confirm, done, is_confirmed, read_form
from birthday.http.console.privacy import note_viewed
from birthday.http.console.profiles import (
    LABELS,
    errors_by_field,
    full_name,
    members_changed,
    next_greetings,
    read_texts,
    tag_of_profile,
    texts_of,
)
from birthday.http.console.rendering import page
from birthday.http.console.view import ROOT, View, actor_of, now
from birthday.http.context import CONTEXT, HELD
from birthday.http.ids import read_id
from birthday.http.json_response import json_response
from birthday.http.people import (
    name_taken,
    note_changed,
    note_deleted,
    note_erased,
    note_suppressed,
    note_unsuppressed,
)
from birthday.operations.explain import Explainer
from birthday.operations.suppressions import check_reason, suppress_user, unsuppress_user
from birthday.store.connection import Connection, borrow, rehearsal
from birthday.store.history import FIRST, Message, list_user_messages
from birthday.store.persons import erase, read_any_user
from birthday.store.suppressions import read_suppression
from birthday.store.users import User, delete_user, is_other, lock_profile, read_users, replace_profile

PATH: Final = f"{ROOT}/users"
_MOST_MESSAGES: Final = 100
"""How many messages of a user a page shows: those of many years."""


async def user(request: web.Request) -> web.StreamResponse:
    """Show a user, live or deleted, and explain what came of the occasions of a year."""
    context, user_id = request.app[CONTEXT], read_id(request, "user")
    year, wrong = _read_year(request.query.get("year", ""))
    async with borrow(context.pool) as connection:
        messages = await list_user_messages(connection, user_id, FIRST, _MOST_MESSAGES)
        try:
            found, deleted_at = await read_any_user(connection, user_id, now(request), context.settings.rules)
        except NotFoundError:
            return page(request, "user_gone.html", title="User", user_id=user_id, messages=messages, plain=plain)
        entry = await read_suppression(connection, found.profile.email)
    explainer = Explainer(context.pool, context.planning, context.settings.catch_up_window)
    explained = await explainer.explain(str(user_id), year, request.query.get("type") or None, now(request))
    await note_viewed(request, [user_id])
    return page(
        request,
        "user.html",
        title="User",
        user=found,
        deleted_at=deleted_at,
        suppression=entry,
        messages=messages,
        explanations=explained.explanations,
        year=year,
        wrong=wrong,
        asked_type=request.query.get("type", ""),
        types=[name for name, _ in found.profile.dates()],
        plain=plain,
    )


async def edit(request: web.Request) -> web.Response:
    """Show the form of a user."""
    found = await _read(request)
    await note_viewed(request, [found.id])
    return _form(request, found.id, texts_of(found.profile), tag_of_profile(found.profile))


async def change(request: web.Request) -> web.Response:
    """Change a user; ask first, and tell what becomes of the messages that are planned."""
    context, user_id, by = request.app[CONTEXT], read_id(request, "user"), actor_of(request)
    form = await read_form(request)
    texts, confirmed, tag = read_texts(form), await is_confirmed(request), form.get("tag", "")
    if EDIT in form:
        return _form(request, user_id, texts, tag)
    found = await _read(request)
    if not confirmed or tag != tag_of_profile(found.profile):
        # What is asked, and the form that somebody else has overtaken, show what is stored.
        await note_viewed(request, [user_id])
    try:
        async with (
            borrow(context.pool) as connection,
            connection.transaction() if confirmed else rehearsal(connection),
        ):
            old, at = await lock_profile(connection, user_id), now(request)
            if tag != tag_of_profile(old):
                return _form(request, user_id, texts, tag_of_profile(old), stored=texts_of(old))
            new = patch_profile(old, members_changed(old, texts), at)
            if not is_other(old, new):
                return done(request, f"{PATH}/{user_id}", "Nothing was changed, because nothing differs.")
            [before] = await read_users(connection, [user_id], at, context.settings.rules)
            pending = await _pending(connection, user_id)
            traceparent = context.tracing.traceparent()
            replanned = await replace_profile(connection, user_id, old, new, at, context.planning, by, traceparent)
            [after] = await read_users(connection, [user_id], at, context.settings.rules)
            left = {one.id for one in await _pending(connection, user_id)}
    except InvalidInputError as error:
        return _form(request, user_id, texts, tag, errors_by_field(error))
    except ConflictError as error:
        await name_taken(context, error)
        return _form(request, user_id, texts, tag, errors_by_field(error), error.existing_id)
    if confirmed:
        note_changed(context, by, old, after, replanned)
        return done(request, f"{PATH}/{user_id}", "The user was changed.")
    facts = [*_changed_fields(before, after), *_moved_greetings(before, after, at)]
    facts += [(f"Cancelled: {_of_day(one)}", "This message is not sent") for one in pending if one.id not in left]
    question = f"Change {full_name(old)}?"
    return confirm(request, question, action="change it", fields={**texts, "tag": tag}, facts=facts, back=None)


async def ask_reason(request: web.Request) -> web.Response:
    """Show the form of an opt-out."""
    found = await _read(request)
    return _reason_form(request, found.id, "", None)


async def suppress(request: web.Request) -> web.Response:
    """Let nothing more be sent to a user, with the reason."""
    context, found, by = request.app[CONTEXT], await _read(request), actor_of(request)
    reason = (await read_form(request)).get("reason", "").strip()
    try:
        check_reason(reason)
    except ValueError as error:
        return _reason_form(request, found.id, reason, str(error))
    if not await is_confirmed(request):
        await note_viewed(request, [found.id])
        facts = [("Reason", reason), *await _cancelled_facts(request, found.id)]
        question = f"Send nothing more to {full_name(found.profile)}?"
        return confirm(
            request,
            question,
            action="send nothing more",
            fields={"reason": reason},
            facts=facts,
            back=f"{PATH}/{found.id}",
        )
    _, changed = await suppress_user(context.pool, found.id, reason, now(request), by)
    note_suppressed(context, by, found.id, changed)
    return done(request, f"{PATH}/{found.id}", "Nothing more is sent to this user.")


async def unsuppress(request: web.Request) -> web.Response:
    """Take an opt-out back."""
    found = await _read(request)
    if not await is_confirmed(request):
        await note_viewed(request, [found.id])
        facts = [("Today", "If today is the day, the message is sent at once.")]
        question = f"Send greetings to {full_name(found.profile)} again?"
        return confirm(request, question, action="send again", facts=facts, back=f"{PATH}/{found.id}")
    changed = await unsuppress_user(request.app[CONTEXT].pool, found.id, now(request), actor_of(request))
    note_unsuppressed(found.id, changed)
    return done(request, f"{PATH}/{found.id}", "Greetings are sent to this user again.")


async def delete(request: web.Request) -> web.Response:
    """Delete a user."""
    context, found = request.app[CONTEXT], await _read(request)
    if not await is_confirmed(request):
        await note_viewed(request, [found.id])
        kept = f"for {context.settings.retention_days} days, then removed; 'Erase' removes them at once"
        facts = [*await _cancelled_facts(request, found.id), ("Data are kept", kept)]
        question = f"Delete {full_name(found.profile)}?"
        return confirm(request, question, action="delete this user", facts=facts, back=f"{PATH}/{found.id}")
    cancelled = await delete_user(context.pool, found.id, now(request), actor_of(request))
    note_deleted(context, found.id, cancelled)
    return done(request, f"{PATH}/{found.id}", "The user was deleted.")


async def remove(request: web.Request) -> web.Response:
    """Erase a person, live or deleted."""
    context, user_id = request.app[CONTEXT], read_id(request, "user")
    if not await is_confirmed(request):
        async with borrow(context.pool) as connection:
            found, _ = await read_any_user(connection, user_id, now(request), context.settings.rules)
        await note_viewed(request, [user_id])
        facts = [
            *await _cancelled_facts(request, user_id),
            ("Removed", "name, address, dates, attributes, texts of errors, and values in the record of changes"),
            ("Kept", "an opt-out, and the year of the last greeting, as hashes that name nobody"),
            ("Taken back", "never: this cannot be undone"),
        ]
        question = f"Erase everything about {full_name(found.profile)}?"
        return confirm(request, question, action="erase this person", facts=facts, back=f"{PATH}/{user_id}")
    async with borrow(context.pool) as connection, connection.transaction():
        erased = await erase(connection, user_id, now(request), actor_of(request))
    note_erased(context, user_id, erased)
    return done(request, PATH, "The person was erased.")


async def data(request: web.Request) -> web.Response:
    """Send everything that is held on a person, as a file."""
    user_id = read_id(request, "user")
    held = await request.app[HELD](user_id)
    await note_viewed(request, [user_id])
    return json_response(held, headers={hdrs.CONTENT_DISPOSITION: f'attachment; filename="person-{user_id}.json"'})


async def _read(request: web.Request) -> User:
    """Return the live user of the address.

    Raises:
        NotFoundError: if there is none.
    """
    context, user_id = request.app[CONTEXT], read_id(request, "user")
    async with borrow(context.pool) as connection:
        for found in await read_users(connection, [user_id], now(request), context.settings.rules):
            return found
    raise NotFoundError("there is no such user, or it was deleted", "unknown_user")


def _read_year(text: str) -> tuple[int | None, str | None]:
    """Return a year of the query, and what is wrong with it."""
    if not text:
        return None, None
    if len(text) == 4 and text.isdecimal() and 1900 <= int(text) <= LAST_YEAR:
        return int(text), None
    return None, "is not a year; four digits such as 2026 are accepted"


def _form(
    request: web.Request,
    user_id: UUID,
    texts: dict[str, str],
    tag: str,
    errors: dict[str, str] | None = None,
    taken_by: UUID | None = None,
    stored: dict[str, str] | None = None,
) -> web.Response:
    """Return the form; ``stored`` are the fields as somebody else has changed them."""
    moved = [(LABELS[name], stored[name]) for name in texts if stored[name] != texts[name]] if stored else None
    return page(
        request,
        "user_edit.html",
        title="Edit user",
        user_id=user_id,
        texts=texts,
        tag=tag,
        errors=errors or {},
        taken_by=taken_by,
        moved=moved,
        zones=sorted(zone_names()),
        labels=LABELS,
    )


def _reason_form(request: web.Request, user_id: UUID, reason: str, wrong: str | None) -> web.Response:
    return page(request, "user_suppress.html", title="Opt out", user_id=user_id, reason=reason, wrong=wrong)


async def _pending(connection: Connection, user_id: UUID) -> list[Message]:
    found = await list_user_messages(connection, user_id, FIRST, _MOST_MESSAGES)
    return [one for one in found if one.status in PENDING]


async def _cancelled_facts(request: web.Request, user_id: UUID) -> Sequence[tuple[str, str]]:
    async with borrow(request.app[CONTEXT].pool) as connection:
        pending = await _pending(connection, user_id)
    return [("Messages cancelled", "; ".join(map(_of_day, pending)) or "none is planned")]


def _of_day(one: Message) -> str:
    return f"{one.message_type} on {one.occasion_on}"


def _changed_fields(before: User, after: User) -> Sequence[tuple[str, str]]:
    old, new = texts_of(before.profile), texts_of(after.profile)
    return [
        (LABELS[name], f"{old[name] or 'nothing'} → {new[name] or 'nothing'}") for name in old if old[name] != new[name]
    ]


def _moved_greetings(before: User, after: User, at: datetime) -> Sequence[tuple[str, str]]:
    old, new = dict(next_greetings(before, at)), dict(next_greetings(after, at))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if not names:
        return [("Messages planned", "stay as they are")]
    return [(name, f"{old.get(name, 'nothing')} → {new.get(name, 'nothing')}") for name in names]


_ONE: Final = "/users/{id}"
VIEWS: Final = (
    View("GET", _ONE, Scope.READ, user),
    View("GET", f"{_ONE}/edit", Scope.WRITE, edit),
    View("POST", f"{_ONE}/edit", Scope.WRITE, change),
    View("GET", f"{_ONE}/suppress", Scope.WRITE, ask_reason),
    View("POST", f"{_ONE}/suppress", Scope.WRITE, suppress),
    View("POST", f"{_ONE}/unsuppress", Scope.WRITE, unsuppress),
    View("POST", f"{_ONE}/delete", Scope.WRITE, delete),
    View("POST", f"{_ONE}/erase", Scope.ADMIN, remove),
    View("GET", f"{_ONE}/data", Scope.ADMIN, data),
)
