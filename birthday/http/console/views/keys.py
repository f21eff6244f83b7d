"""API keys: who has which, and how they are made, rotated and revoked. A key itself is on one page, once."""

from datetime import datetime, timedelta
from typing import Final

from aiohttp import web

from birthday.config import Scope, parse_duration, show_duration
from birthday.errors import ConflictError, FieldError, InvalidInputError, NotFoundError
from birthday.http.console.fields import given_fields, read, read_instant
from birthday.http.console.forms import confirm, done, is_confirmed, read_form
from birthday.http.console.rendering import page
from birthday.http.console.view import ROOT, VISITOR, View, actor_of, now
from birthday.http.context import CONTEXT, SUBJECT
from birthday.operations.keys import OVERLAP, REMEMBERED, NewKey, create_key, revoke_key, rotate_key
from birthday.store.connection import borrow
from birthday.store.keys import StoredKey, read_keys

PATH: Final = f"{ROOT}/settings/keys"
LONGEST_OVERLAP: Final = timedelta(days=90)


async def keys(request: web.Request) -> web.StreamResponse:
    """Show the keys that work, and those that have ended in the last weeks."""
    context, at = request.app[CONTEXT], now(request)
    async with borrow(context.pool) as connection:
        stored = await read_keys(connection, at - REMEMBERED)
    return page(
        request,
        "keys.html",
        title="API keys",
        keys=[(key, key.state(at), key.works(at), key.expires_soon(at)) for key in reversed(stored)],
        configured=context.settings.api_keys,
        scopes=tuple(Scope),
        has_own=request[VISITOR].name is not None,
        overlap=show_duration(OVERLAP),
        path=PATH,
        settings=f"{ROOT}/settings",
    )


async def create(request: web.Request) -> web.StreamResponse:
    """Make a key for a client."""
    context, at = request.app[CONTEXT], now(request)
    if request[VISITOR].name is None:
        # Whoever merely reaches the port of a service without keys must not keep others out.
        raise web.HTTPForbidden(text="The first key is made by 'birthday keys create NAME --scope admin'")
    fields = given_fields(await read_form(request), "name", "scope", "expires")
    name, scope = fields.get("name"), read(fields, "scope", Scope, f"one of {', '.join(Scope)} is accepted")
    expires_at = read_instant(fields, "expires", is_end=True)
    if name is None or scope is None:
        raise InvalidInputError(FieldError("", "it is required", "name" if name is None else "scope"))
    if not await is_confirmed(request):
        facts = [("Scope", scope.value), ("Ends", f"{expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else "never")]
        return confirm(request, f"Make a key for {name}?", action="make it", fields=fields, facts=facts, back=PATH)
    configured = context.settings.api_keys
    new = await create_key(
        context.pool, name, scope, at, actor_of(request), expires_at=expires_at, configured=configured
    )
    return _show_once(request, new, at)


async def rotate(request: web.Request) -> web.StreamResponse:
    """Make a new key for a client. The older ones work beside it until the overlap is over."""
    at, key = now(request), await _find(request)
    fields = given_fields(await read_form(request), "overlap")
    accepted = f"a duration of at most {LONGEST_OVERLAP.days}d, such as 24h, is accepted"
    overlap = read(fields, "overlap", _parse_overlap, accepted)
    overlap = OVERLAP if overlap is None else overlap
    if key.replaced_at is not None:
        raise ConflictError(f"the key {key.id} of {key.name} has been rotated already: rotate the newer one")
    if not await is_confirmed(request):
        facts = [("Scope", key.scope), ("The key now", f"works for {show_duration(overlap)} more")]
        return confirm(
            request, f"Rotate the key of {key.name}?", action="rotate it", fields=fields, facts=facts, back=PATH
        )
    new = await rotate_key(request.app[CONTEXT].pool, key.id, at, actor_of(request), overlap)
    return _show_once(request, new, at)


async def revoke(request: web.Request) -> web.StreamResponse:
    """End a key at once."""
    key = await _find(request)
    if not await is_confirmed(request):
        used = f"{key.last_used_at:%Y-%m-%d %H:%M} UTC" if key.last_used_at else "never"
        facts = [("Key", key.id), ("Scope", key.scope), ("Last used", used)]
        if key.name == request[VISITOR].name:
            facts.append(("You", f"have signed in as {key.name}: with this key, your session ends as well"))
        return confirm(request, f"Revoke the key of {key.name}?", action="revoke it", facts=facts, back=PATH)
    await revoke_key(request.app[CONTEXT].pool, key.id, now(request), actor_of(request))
    return done(request, PATH, f"The key {key.id} of {key.name} is revoked: no process accepts it in five seconds.")


def _parse_overlap(text: str) -> timedelta:
    overlap = parse_duration(text)
    if overlap > LONGEST_OVERLAP:
        raise ValueError(text)
    return overlap


async def _find(request: web.Request) -> StoredKey:
    """Return the key in the path.

    Raises:
        NotFoundError: if there is no such key that works.
    """
    key_id, at = request.match_info["id"], now(request)
    request[SUBJECT] = key_id
    async with borrow(request.app[CONTEXT].pool) as connection:
        found = [key for key in await read_keys(connection, at) if key.id == key_id and key.works(at)]
    if not found:
        raise NotFoundError("there is no key with this id that works")
    return found[0]


def _show_once(request: web.Request, new: NewKey, at: datetime) -> web.Response:
    return page(request, "key_made.html", title=f"The new key of {new.stored.name}", new=new, at=at, path=PATH)


VIEWS: Final = (
    View("GET", "/settings/keys", Scope.ADMIN, keys),
    View("POST", "/settings/keys", Scope.ADMIN, create),
    View("POST", "/settings/keys/{id}/rotate", Scope.ADMIN, rotate),
    View("POST", "/settings/keys/{id}/revoke", Scope.ADMIN, revoke),
)
