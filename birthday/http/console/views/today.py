"""Today: who is greeted today, by zone and state. A user's today is the date that it is there now."""

from collections import Counter
from typing import Final

from aiohttp import web

from birthday.config import Scope
from birthday.core.message import Status
from birthday.http.console import plain
from birthday.http.console.fields import address
from birthday.http.console.finding import FIELDS, read_filter
from birthday.http.console.privacy import note_viewed
from birthday.http.console.rendering import page, see_other
from birthday.http.console.view import ROOT, View, now
from birthday.http.context import CONTEXT
from birthday.http.cursors import message_cursor, read_message_cursor
from birthday.operations.today import day_of, read_day
from birthday.store.connection import borrow
from birthday.store.today import Wanted, count_greeted, list_greeted

PATH: Final = f"{ROOT}/today"
PAGE: Final = 50
STATES: Final = {
    "waiting": ("Waiting", (Status.SCHEDULED, Status.QUEUED, Status.SENDING, Status.RETRYING)),
    "delivered": ("Delivered", (Status.DELIVERED,)),
    "failed": ("Failed", (Status.FAILED, Status.EXPIRED)),
    "cancelled": ("Cancelled", (Status.CANCELLED,)),
}
"""The states that can be chosen: their names, and what they have."""
_STATE_OF: Final = {status: name for name, (_, some) in STATES.items() for status in some}


async def today(request: web.Request) -> web.StreamResponse:
    """Show the messages of today, in the order in which they are due."""
    context, at = request.app[CONTEXT], now(request)
    given = {name: request.query.get(name, "").strip() for name in ("q", "zone", "state")}
    asked, errors = read_filter({**dict.fromkeys(FIELDS, ""), **given})
    try:
        cursor = read_message_cursor(request.query["cursor"]) if "cursor" in request.query else None
    except ValueError:
        # It is of no list of ours: the list begins again.
        return see_other(address(PATH, given))
    statuses = STATES[given["state"]][1] if given["state"] in STATES else tuple(Status)
    wanted, zone = Wanted(statuses, asked.name, asked.email), asked.zone
    async with borrow(context.pool) as connection:
        day = await read_day(connection, at, context.settings.rules)
        counts, is_all = await count_greeted(connection, day)
        chosen = day_of([zone], at, context.settings.rules) if zone else day
        greeted, after = ([], None) if errors else await list_greeted(connection, chosen, wanted, cursor, PAGE)
    await note_viewed(request, sorted({one.user_id for one in greeted}))
    states: Counter[str] = Counter()
    zones: dict[str, Counter[str]] = {}
    for (name, status), count in counts.items():
        state = _STATE_OF[status]
        states[state] += count
        zones.setdefault(name, Counter())[state] += count
    return page(
        request,
        "today.html",
        title="Today",
        given=given,
        errors=errors,
        greeted=greeted,
        states=[
            (name, title, states[name], address(PATH, {**given, "state": name})) for name, (title, _) in STATES.items()
        ],
        total=states.total(),
        is_all=is_all,
        everything=address(PATH, {**given, "state": ""}),
        by_zone=[
            (name, day.dates[name], some, address(PATH, {**given, "zone": name}))
            for name, some in sorted(zones.items(), key=lambda one: -one[1].total())
        ],
        first=address(PATH, given) if cursor else None,
        following=after and address(PATH, {**given, "cursor": message_cursor(after)}),
        plain=plain,
    )


VIEWS: Final = (View("GET", "/today", Scope.READ, today, nav="Today"),)
