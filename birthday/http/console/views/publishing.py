"""Publishing a template: who would not get it, a test through the real channel, and the publication itself."""

import time
from http import HTTPStatus
from typing import Final

from aiohttp import web
from markupsafe import Markup

from birthday.channels import Delivered, Permanent, Temporary, Unable
from birthday.config import Scope
from birthday.content import Template
from birthday.core.address import parse_address
from birthday.core.template import template_name
from birthday.errors import BirthdayError, FieldError, InvalidInputError, NotFoundError
from birthday.http.console.drafts import (
    Draft,
    Fault,
    author_of,
    edit,
    number_of,
    path_of,
    read_active,
    read_draft,
    unchanged_since,
)
from birthday.http.console.forms import CONFIRMED, confirm, done, is_confirmed, read_form
from birthday.http.console.privacy import note_viewed
from birthday.http.console.progress import Report, progress
from birthday.http.console.rendering import explain, page, render
from birthday.http.console.view import View, actor_of, now
from birthday.http.context import CONTEXT
from birthday.operations.templates.differences import differences
from birthday.operations.templates.publishing import FailingError, OnTried, Rehearsal, publish_template, rehearse
from birthday.operations.templates.trying import preview, send_test
from birthday.operations.templates.values import site_of
from birthday.store.changes import TEMPLATE, record_changes
from birthday.store.connection import borrow
from birthday.store.templates import Version, count_audiences

TESTED: Final = "tested"
_TELL_SECONDS: Final = 0.25


async def check(request: web.Request) -> web.StreamResponse:
    """Try the draft for everybody whom it would concern, and tell for whom it fails. Nothing is published."""
    draft, context = await read_draft(request), request.app[CONTEXT]
    try:
        template = await context.compiler.compile(draft.source(), draft.key[1])
    except InvalidInputError as error:
        return await edit(request, draft, draft.faults(error), status=HTTPStatus.UNPROCESSABLE_ENTITY)
    async with progress(request, f"Trying {template_name(*draft.key)} for everybody", path_of(draft.key)) as report:
        try:
            site = site_of(context.settings)
            found = await rehearse(context.pool, draft.key, template, now(request), site, _teller(report))
            await _show(request, report, draft, rehearsal=found)
        except InvalidInputError as error:
            await _show(request, report, draft, faults=draft.faults(error))
    return report.answer


async def publish(request: web.Request) -> web.StreamResponse:
    """Publish the draft, unless it fails for somebody, or another version has become active since it was begun."""
    draft = await read_draft(request)
    active = await read_active(request, draft.key)
    try:
        template = await request.app[CONTEXT].compiler.compile(draft.source(), draft.key[1])
    except InvalidInputError as error:
        return await edit(request, draft, draft.faults(error), status=HTTPStatus.UNPROCESSABLE_ENTITY)
    if number_of(active) != draft.began:
        return await edit(request, draft)
    if active is not None and active.source == template.source:
        same = Fault(f"This is what version {number_of(active)} says already: there is nothing to publish.")
        return await edit(request, draft, [same], status=HTTPStatus.UNPROCESSABLE_ENTITY)
    if await is_confirmed(request):
        return await _publish(request, draft, template)
    async with borrow(request.app[CONTEXT].pool) as connection:
        audiences = await count_audiences(connection)
    return page(
        request,
        "template_publish.html",
        title=f"Publish {template_name(*draft.key)}?",
        path=path_of(draft.key),
        fields=draft.fields,
        confirmed=CONFIRMED,
        users=audiences.count(*draft.key),
        is_exact=audiences.is_exact,
        has_active=active is not None,
        differences=differences(None if active is None else active.source, template.source),
    )


async def _publish(request: web.Request, draft: Draft, template: Template) -> web.StreamResponse:
    context, name = request.app[CONTEXT], template_name(*draft.key)
    forced = "force" in await read_form(request)

    def unchanged(active: Version | None) -> None:
        unchanged_since(draft, active)

    async with progress(request, f"Publishing {name}", path_of(draft.key)) as report:
        try:
            published = await publish_template(
                context.pool,
                draft.key,
                template,
                author_of(request),
                site_of(context.settings),
                force=forced,
                on_tried=_teller(report),
                check=unchanged,
            )
        except FailingError as error:
            await _show(request, report, draft, rehearsal=error.rehearsal, refused=True)
        except InvalidInputError as error:
            await _show(request, report, draft, faults=draft.faults(error), refused=True)
        except BirthdayError as error:
            await _show(request, report, draft, faults=[Fault(explain(error))], refused=True)
        else:
            failing = f" It fails for {published.failing:,} of them." if published.failing else ""
            users = "1 user" if published.tried == 1 else f"{published.tried:,} users"
            told = f"Version {published.key.version} of {name} is active, tried for {users}.{failing}"
            await report.done(path_of(draft.key), told)
    return report.answer


async def test(request: web.Request) -> web.StreamResponse:
    """Send what the draft says to an address, through the real channel, marked as a test."""
    draft, context = await read_draft(request), request.app[CONTEXT]
    site, at = site_of(context.settings), now(request)
    try:
        trial = await draft.trial(request)
        try:
            to = parse_address(draft.fields["to"].strip())
        except ValueError as error:
            raise InvalidInputError(FieldError("/to", f"the address of the test {error}")) from None
        said = (await preview(context.pool, context.compiler, trial, at.date(), site)).said
    except NotFoundError as error:
        return await edit(request, draft, [Fault(str(error))], status=HTTPStatus.UNPROCESSABLE_ENTITY)
    except InvalidInputError as error:
        return await edit(request, draft, draft.faults(error), status=HTTPStatus.UNPROCESSABLE_ENTITY)
    if not await is_confirmed(request):
        if trial.user_id is not None:
            await note_viewed(request, [trial.user_id])
        facts = [("To", to), ("It says", said.message)]
        return confirm(
            request,
            "Send a test?",
            action="send it",
            fields=draft.fields,
            facts=facts,
            back=path_of(draft.key),
        )
    change = actor_of(request).change(TESTED, TEMPLATE, template_name(*draft.key))
    async with borrow(context.pool) as connection, connection.transaction():
        await record_changes(connection, [change], at)
    outcome = await send_test(context.pool, context.channel, context.compiler, trial, to, at, site)
    if isinstance(outcome, Delivered):
        return done(request, path_of(draft.key), f"A test was sent to {to}. Your text is still on the page before.")
    title, text = _tell_failure(outcome)
    return page(request, "error.html", title=title, text=text, status=HTTPStatus.BAD_GATEWAY)


def _tell_failure(outcome: Temporary | Permanent | Unable) -> tuple[str, str]:
    """Return a title, and a text that says why a test was not delivered, or may not have been, and what to do."""
    title, text = "The test was not delivered", f"The channel did not take it: {outcome.reason}. Nobody got anything."
    match outcome:
        case Temporary(may_have_arrived=True) | Unable(answer_lost=True):
            title = "The test may have been delivered"
            text = f"No answer came: {outcome.reason}. It may have arrived: look into that mailbox before another test."
            return title, text
        case Temporary(refused=True) | Permanent(refused=True):
            return title, f"{text} Services answer like that to a wrong URL or key: see the page Settings."
        case _:
            return title, f"{text} The page Settings shows which channel is used."


def _teller(report: Report) -> OnTried:
    """Return what tells how many users have been tried, a few times a second."""
    told_at = time.monotonic()

    async def tell(tried: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_SECONDS:
            told_at = time.monotonic()
            await report(f"Tried for {tried:,} users")

    return tell


async def _show(
    request: web.Request,
    report: Report,
    draft: Draft,
    *,
    rehearsal: Rehearsal | None = None,
    faults: list[Fault] | None = None,
    refused: bool = False,
) -> None:
    """Show the result in place of the progress, with the draft in forms that go on from here."""
    values = {"rehearsal": rehearsal, "faults": faults or [], "refused": refused, "path": path_of(draft.key)}
    text = render(request, "template_tried.html", fields=draft.fields, confirmed=CONFIRMED, **values)
    await report(Markup(text))  # noqa: S704 - it was rendered with all values escaped


_PATH: Final = "/templates/{type}/{locale}"

VIEWS: Final = (
    View("POST", f"{_PATH}/check", Scope.ADMIN, check),
    View("POST", f"{_PATH}/publish", Scope.ADMIN, publish),
    View("POST", f"{_PATH}/test", Scope.ADMIN, test),
)
