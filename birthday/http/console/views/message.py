"""One message: its way so far, what it says, and another try."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from aiohttp import web

from birthday.config import Scope
from birthday.core.message import Status
from birthday.errors import InvalidInputError, NotFoundError
from birthday.http.console import plain
from birthday.http.console.forms import confirm, done, is_confirmed
from birthday.http.console.privacy import note_viewed
from birthday.http.console.rendering import page
from birthday.http.console.view import ROOT, View, actor_of, now
from birthday.http.context import CONTEXT
from birthday.http.ids import read_id
from birthday.http.requeueing import sweep_turn, turn
from birthday.operations.dead_letters.requeue import drop_copy, requeue_one
from birthday.operations.templates.trying import Trial, preview
from birthday.operations.templates.values import site_of
from birthday.store.changes import MESSAGE, VIEWED, Recorded, read_changes_about
from birthday.store.connection import borrow
from birthday.store.history import Message, Trail, read_message, read_trail
from birthday.store.persons import read_any_user

PATH: Final = f"{ROOT}/messages"
_DONE: Final = {"retried": "Sent again"}
"""What operators have done, in words."""


class Event(NamedTuple):
    """Something on the way of a message; ``kind`` is its colour."""

    at: datetime
    kind: str
    text: str


async def message(request: web.Request) -> web.Response:
    """Show a message, and its user if there still is one."""
    context, message_id = request.app[CONTEXT], read_id(request, "message")
    async with borrow(context.pool) as connection:
        found = await read_message(connection, message_id)
        trail = await read_trail(connection, message_id)
        changes = await read_changes_about(connection, [str(message_id)])
        try:
            user, _ = await read_any_user(connection, found.user_id, now(request), context.settings.rules)
        except NotFoundError:
            user = None
    if user is not None:
        await note_viewed(request, [user.id])
    return page(
        request,
        "message.html",
        title="Message",
        message=found,
        user=user,
        zone=user.profile.zone if user else "",
        events=timeline(found, trail, changes),
        trace_id=trail.traceparent.split("-")[1] if trail.traceparent else None,
        may_have_arrived=trail.may_have_arrived,
        plain=plain,
    )


def timeline(found: Message, trail: Trail, changes: Sequence[Recorded]) -> list[Event]:
    """Return what is stored of the way of a message, in order of time: the ends of it, and what operators did."""
    tries = f"attempt {found.attempts}" if found.attempts else "before any attempt"
    final = {
        Status.FAILED: Event(found.updated_at, "bad", f"Failed for good, {tries}"),
        Status.CANCELLED: Event(found.updated_at, "idle", "Cancelled"),
        Status.EXPIRED: Event(found.updated_at, "bad", "Given up: too late"),
        Status.SENDING: Event(found.updated_at, "idle", f"Being sent, {tries}"),
    }.get(found.status)
    stored = (
        (found.created_at, "idle", "Planned"),
        (found.scheduled_at, "idle", "Due"),
        (found.queued_at, "idle", "Last put into the queue"),
        (found.sent_at, "idle", "First handed to the message service"),
        (trail.failed_at if found.status is not Status.FAILED else None, "warn", "An attempt failed"),
        (found.delivered_at, "good", f"Accepted for delivery, {tries}"),
        (found.next_attempt_at, "idle", "Next attempt"),
    )
    events = [Event(at, kind, text) for at, kind, text in stored if at is not None]
    events += [
        Event(one.at, "idle", f"{_DONE.get(one.change.action, one.change.action)} by {one.change.actor}")
        for one in changes
        if one.change.action != VIEWED
    ]
    return sorted([*events, final] if final else events, key=lambda event: event.at)


async def say(request: web.Request) -> web.Response:
    """Show what a message says, made again from its template; the record of changes has who has seen it."""
    context, message_id = request.app[CONTEXT], read_id(request, "message")
    async with borrow(context.pool) as connection:
        found = await read_message(connection, message_id)
    back = f"{PATH}/{message_id}"
    if not await is_confirmed(request):
        facts = [
            ("Made again", "from the template's version and from what is known of the user now"),
            ("Recorded", "Activity has that you have seen it"),
        ]
        return confirm(request, "Show what the message says?", action="show it", facts=facts, back=back)
    trial = Trial(found.message_type, found.locale, found.version, found.user_id)
    said, wrong = None, None
    try:
        site = site_of(context.settings)
        said = (await preview(context.pool, context.compiler, trial, found.occasion_on, site)).said
    except (InvalidInputError, NotFoundError) as error:
        wrong = str(error)
    await note_viewed(request, [message_id], MESSAGE)
    return page(request, "message_said.html", title="What the message says", message=found, said=said, wrong=wrong)


async def retry(request: web.Request) -> web.Response:
    """Send a failed message again."""
    context, message_id, by = request.app[CONTEXT], read_id(request, "message"), actor_of(request)
    back = f"{PATH}/{message_id}"
    if not await is_confirmed(request):
        async with borrow(context.pool) as connection:
            found = await read_message(connection, message_id)
            trail = await read_trail(connection, message_id)
        arrived = "It may have arrived before" if trail.may_have_arrived else "It has not arrived"
        facts = [
            ("State now", found.status),
            ("Greeting of", f"{found.message_type} on {found.occasion_on}"),
            ("So far", arrived),
            ("Key", "The same Idempotency-Key, so that a message service that knows it does not deliver it twice"),
        ]
        return confirm(request, "Send this message again?", action="send it again", facts=facts, back=back)
    async with turn(context):
        await requeue_one(context.pool, context.broker, message_id, now(request), by, context.tracing)
    context.metrics.messages_queued.inc()
    async with sweep_turn(context):
        await drop_copy(context.pool, context.broker, message_id)
    return done(request, back, "The message is in the queue again.")


_ONE: Final = "/messages/{id}"
VIEWS: Final = (
    View("GET", _ONE, Scope.READ, message),
    View("POST", f"{_ONE}/said", Scope.WRITE, say),
    View("POST", f"{_ONE}/retry", Scope.ADMIN, retry),
)
