"""Mends what failed: sends messages again, and drops their dead letters, all that match.

The page that asks fixes the instant, so that only what had failed by then is concerned, however long a visitor thinks.
"""

from typing import Final

import structlog
from aiohttp import web

from birthday.config import Scope
from birthday.errors import UnavailableError
from birthday.http.console.failed import PATH, choose, count
from birthday.http.console.forms import confirm, done, is_confirmed, read_form
from birthday.http.console.progress import follow, progress
from birthday.http.console.view import View, actor_of
from birthday.http.context import CONTEXT
from birthday.http.requeueing import requeue_in_turns
from birthday.operations.dead_letters.letters import Kind
from birthday.operations.dead_letters.removal import Tally, remove_dead
from birthday.store.causes import MOST, Causes
from birthday.store.failed import FailedFilter

log = structlog.get_logger()

_TOLD: Final = 5
"""How many causes the page that asks tells."""


async def requeue(request: web.Request) -> web.StreamResponse:
    """Queue again all failed messages that match."""
    choice = choose(request, await read_form(request))
    if not await is_confirmed(request):
        causes = await count(request, choice)
        if not causes.messages:
            return done(request, PATH, "No failed message matches: perhaps somebody has sent them again meanwhile.")
        many = _counted(causes.messages, "failed message")
        return confirm(
            request,
            f"Send {many} again?",
            action=f"send {many} again",
            fields=choice.fixed,
            facts=_tell_causes(causes),
            back=choice.page,
        )
    async with progress(request, "Sending failed messages again", choice.page) as report:
        total, queued, tally = (await count(request, choice)).messages, 0, Tally()

        def on_batch(number: int) -> None:
            nonlocal queued
            queued += number

        work = requeue_in_turns(request.app[CONTEXT], choice.wanted, None, actor_of(request), on_batch)
        try:
            await follow(report, work, lambda: f"{queued:,} of {_counted(total, 'message')} queued again")
        finally:
            log.info("dlq.requeued", messages=queued, selected=total)
        text = _tell_requeued(total, queued, (await count(request, choice)).messages)
        try:
            await follow(report, _remove(request, None, tally), lambda: f"{text} {tally.seen:,} dead letters looked at")
        except UnavailableError:
            text += " The queue did not answer: their dead letters go with the next requeue."
        await report.done(choice.page, text)
    return report.answer


async def drop(request: web.Request) -> web.StreamResponse:
    """Remove the dead letters of all failed messages that match, or of one, from the queue."""
    choice = choose(request, await read_form(request))
    stats = await request.app[CONTEXT].broker.stats()
    if not await is_confirmed(request):
        number = (await count(request, choice)).messages
        many = _counted(number, "failed message")
        facts = [
            ("The messages", f"{many}: they stay failed in the list, and can be sent again later"),
            ("Dead letters", f"{stats.dead:,} in the queue; those of these messages are removed for good"),
        ]
        if not choice.fields:
            facts.append(("Others", "Dead letters that are no message of ours are removed as well"))
        question = f"Drop the dead letters of {many}?" if number else "Drop dead letters that are no message of ours?"
        return confirm(request, question, action="drop them", fields=choice.fixed, facts=facts, back=choice.page)
    async with progress(request, "Dropping dead letters", choice.page) as report:
        tally = Tally()
        await follow(
            report,
            _remove(request, choice.wanted, tally),
            lambda: f"{tally.chosen.total():,} dropped; {tally.seen:,} of {_many(stats.dead, 'dead letter')} looked at",
        )
        await report.done(choice.page, _tell_dropped(tally))
    return report.answer


async def _remove(request: web.Request, wanted: FailedFilter | None, tally: Tally) -> None:
    """Remove the dead letters that are meant, and those of messages that are no longer failed."""
    context = request.app[CONTEXT]
    async with context.sweeping:
        await remove_dead(context.pool, context.broker, wanted, context.clock, actor_of(request), tally.add)


def _tell_causes(causes: Causes) -> list[tuple[str, str]]:
    told = [(cause.detail or "no error", f"{cause.messages:,}") for cause in causes.causes[:_TOLD]]
    if others := sum(cause.messages for cause in causes.causes[_TOLD:]):
        told.append(("Other errors", f"{others:,}"))
    return told


def _tell_requeued(total: int, queued: int, left: int) -> str:
    text = f"{queued:,} of {_counted(total, 'message')} queued again."
    if others := max(0, total - queued - left):
        text += f" {others:,} were no longer failed: somebody else has sent or changed them."
    return text + (f" {left:,}{'+' if left >= MOST else ''} are still failed: the log says why." if left else "")


def _tell_dropped(tally: Tally) -> str:
    failed = tally.chosen[Kind.FAILED]
    text = f"{_many(tally.chosen.total(), 'dead letter')} dropped"
    text += f", {failed:,} of messages, which stay failed." if failed else "."
    if tally.settled:
        text += f" {tally.settled:,} more are gone: their messages are not failed any more, somebody has sent them."
    return text


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _counted(number: int, what: str) -> str:
    """Return a number of failed messages; of more than ``MOST`` only that there are as many."""
    return f"{number:,}+ {what}s" if number >= MOST else _many(number, what)


VIEWS: Final = (
    View("POST", "/failures/requeue", Scope.ADMIN, requeue),
    View("POST", "/failures/drop", Scope.ADMIN, drop),
)
