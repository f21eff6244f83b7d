"""Try a template: what it says to a user or to somebody made up, on the screen or through the real channel."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from birthday.channels import Channel, Greeting, Outcome
from birthday.content import Rendered, RenderError
from birthday.core.ident import uuid7
from birthday.core.template import Source, TemplateKey
from birthday.errors import FieldError, InvalidInputError
from birthday.operations.templates.compiling import Compiler
from birthday.operations.templates.values import Site, sample, values_of
from birthday.store.connection import borrow
from birthday.store.templates import choose_locale, read_person, read_version

MARK: Final = "[Test] "
"""What message and subject of a test begin with."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What to try: a type in a locale (by default the one that the user gets), for a user or for ``known`` values.

    ``version`` is the active one by default. ``draft`` is tried in place of what is stored.
    """

    message_type: str
    locale: str | None = None
    version: int | None = None
    user_id: UUID | None = None
    known: dict[str, Any] | None = None
    draft: Source | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What a template says. ``key`` is None for a draft."""

    key: TemplateKey | None
    said: Rendered


async def preview(
    pool: asyncpg.Pool, compiler: Compiler, trial: Trial, today: date, site: Site, mark: str = ""
) -> Tried:
    """Return what would be said.

    Raises:
        InvalidInputError: if the draft is wrong, or the template says nothing.
        NotFoundError: if there is no such template or user.
        UnavailableError: if the database cannot be used.
    """
    async with borrow(pool) as connection:
        if trial.user_id is None:
            values = sample(trial.message_type, today, site, **trial.known or {})
        else:
            person = await read_person(connection, trial.user_id, trial.message_type)
            values = values_of(person, trial.message_type, today, site)
        locale = trial.locale or await choose_locale(connection, trial.message_type, values.locale)
        key, source = None, trial.draft
        if source is None:
            stored = await read_version(connection, trial.message_type, locale, trial.version)
            key, source = stored.key, stored.source
    template = await compiler.compile(source, locale)
    try:
        return Tried(key, template.render(values, mark))
    except RenderError as error:
        raise InvalidInputError(FieldError("", str(error))) from None


async def send_test(
    pool: asyncpg.Pool,
    channel: Channel,
    compiler: Compiler,
    trial: Trial,
    address: str,
    now: datetime,
    site: Site,
) -> Outcome:
    """Send what a template says to ``address``, marked as a test. It has an id of its own, and is recorded nowhere."""
    tried = await preview(pool, compiler, trial, now.date(), site, MARK)
    said = tried.said
    greeting = Greeting(uuid7(now), address, said.message, subject=said.subject, html=said.html, payload=said.payload)
    return await channel.send(greeting)
