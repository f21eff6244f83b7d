"""What API and console share about users: a page of a list, and what metrics and log tell of a change."""

from contextlib import suppress
from datetime import date
from uuid import UUID

import structlog

from birthday.core.message import ErrorType
from birthday.core.user import Profile
from birthday.errors import ConflictError, FieldError, InvalidInputError, UnavailableError
from birthday.http.context import ApiContext
from birthday.http.cursors import ID_BYTES, NO_CURSOR, place_cursor, read_hidden, user_cursor
from birthday.store.changes import Actor
from birthday.store.connection import borrow
from birthday.store.creation import NewUser
from birthday.store.listing import Place, UserFilter, check_place, list_users, order_of, read_cursor_key
from birthday.store.persons import Erased
from birthday.store.suppressions import Changed
from birthday.store.users import Replanned, User, list_ids, name_existing, read_users

log = structlog.get_logger()


async def read_page(
    context: ApiContext, wanted: UserFilter | None, cursor: bytes | None, limit: int
) -> tuple[list[User], str | None]:
    """Return a page of the users that a filter means, or of all, and the cursor of the next one.

    A filter may lack the name if the cursor is of a list that is selected by one.
    """
    async with borrow(context.pool) as connection:
        # One more than the page holds tells whether there is another page.
        if wanted is None and len(cursor or b"") <= ID_BYTES:
            ids = await list_ids(connection, UUID(bytes=cursor) if cursor else None, limit + 1)
            following = user_cursor(ids[limit - 1]) if len(ids) > limit else None
        else:
            secret = await read_cursor_key(connection)
            wanted, after = _resume(wanted or UserFilter(), cursor, secret)
            places = await list_users(connection, wanted, after, limit + 1)
            ids = [place.id for place in places]
            last = places[limit - 1] if len(places) > limit else None
            following = last and place_cursor(last, order_of(wanted), secret, wanted.name)
        found = await read_users(connection, ids[:limit], context.clock.now(), context.settings.rules)
    by_id = {user.id: user for user in found}
    # Somebody may have been deleted in between.
    return [by_id[user_id] for user_id in ids[:limit] if user_id in by_id], following


def _resume(wanted: UserFilter, cursor: bytes | None, secret: bytes) -> tuple[UserFilter, Place | None]:
    """Return the filter with the name that the cursor has, and its place; None if it is of another list.

    Raises:
        InvalidInputError: if the cursor is damaged.
    """
    hidden = read_hidden(cursor, secret) if cursor else None
    if hidden is not None:
        named = wanted._replace(name=wanted.name or hidden.name)
        order = order_of(named)
        if hidden.order == order:
            try:
                check_place(hidden.place, order)
            except ValueError:
                raise InvalidInputError(FieldError("", NO_CURSOR, "cursor")) from None
            return named, hidden.place
    return wanted, None


async def name_taken(context: ApiContext, error: ConflictError) -> None:
    """Add to a conflict the id of the user who has the address or external id."""
    with suppress(UnavailableError):
        async with borrow(context.pool) as connection:
            await name_existing(connection, error)


def note_created(context: ApiContext, new: NewUser, user: User) -> None:
    """Count a new user, with the messages that were planned at once."""
    context.metrics.users_created.inc()
    if new.user.profile.extras.suppressed:
        context.metrics.suppressions.labels(_source(new.by)).inc()
    if new.messages:
        sent = {one.message_type: one.on for one in user.upcoming if one.due_at}
        planned = [one for one in new.messages if one.occasion.on >= sent.get(one.message_type, date.max)]
        context.metrics.messages_scheduled.inc(len(planned))


def note_changed(context: ApiContext, by: Actor, old: Profile, user: User, replanned: Replanned) -> None:
    """Count what a change of a profile did to the messages."""
    context.metrics.messages_scheduled.inc(replanned.planned)
    context.metrics.messages_cancelled.inc(replanned.cancelled)
    if user.profile.extras.suppressed:
        context.metrics.suppressions.labels(_source(by)).inc(not old.extras.suppressed)
        context.metrics.messages_suppressed.inc(replanned.cancelled)


def note_deleted(context: ApiContext, user_id: UUID, cancelled: int) -> None:
    """Count and log a deletion."""
    # The log is a list of deletions outside of the database: "birthday import --deleted" reads it after a restore.
    log.info("user.deleted", user_id=str(user_id), messages_cancelled=cancelled)
    context.metrics.messages_cancelled.inc(cancelled)


def note_erased(context: ApiContext, user_id: UUID, erased: Erased) -> None:
    """Count and log an erasure."""
    # The log is a list of erasures outside of the database, for use after a restore.
    log.info("user.erased", user_id=str(user_id), messages_cancelled=erased.cancelled)
    context.metrics.messages_cancelled.inc(erased.cancelled)
    context.metrics.messages_failed.labels(ErrorType.PERMANENT_FAILURE.value).inc(erased.given_up)
    context.metrics.birthdays_processed.inc(erased.given_up)


def note_suppressed(context: ApiContext, by: Actor, user_id: UUID, changed: Changed) -> None:
    """Count and log an opt-out."""
    log.info("user.suppressed", user_id=str(user_id), by=by.name, messages_cancelled=changed.messages)
    context.metrics.suppressions.labels(_source(by)).inc(changed.addresses)
    context.metrics.messages_cancelled.inc(changed.messages)
    context.metrics.messages_suppressed.inc(changed.messages)


def note_unsuppressed(user_id: UUID, changed: Changed) -> None:
    """Log that an opt-out was taken back."""
    log.info("user.unsuppressed", user_id=str(user_id), messages_scheduled=changed.messages)


def _source(by: Actor) -> str:
    """Return ``api`` or ``console``, without the name of the key."""
    return by.name.partition(":")[0]
