"""Publish a compiled template: try it for everybody whom it concerns, and make it active if nobody fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from birthday.content import RenderError, Template
from birthday.core.template import TemplateKey, template_name
from birthday.errors import FieldError, InvalidInputError, NotFoundError
from birthday.operations.templates.values import Site, sample, values_of
from birthday.store.changes import TEMPLATE, Actor, record_changes
from birthday.store.connection import Connection, borrow
from birthday.store.templates import Version, activate, hold, publish, read_concerned, read_version

log = structlog.get_logger()

NAMED: Final = 10
"""How many of those for whom a template fails are named."""
_PAGE: Final = 1000
"""How many users are looked at before it is told how far it has come."""
_TURN_SECONDS: Final = 0.002
"""How long users are tried before the event loop gets its turn."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who publishes, and when."""

    by: Actor
    at: datetime

    @property
    def name(self) -> str:
        """The name of the author."""
        return self.by.name


@dataclass(frozen=True, slots=True)
class Published:
    """A version that is active now. ``tried`` users were rendered for, and it fails for ``failing`` of them."""

    key: TemplateKey
    is_new: bool
    tried: int = 0
    failing: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A user for whom a template fails, and why."""

    user_id: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """For how many users a template was tried, and for how many of them it fails; ``first`` are some of these."""

    tried: int
    failing: int
    first: tuple[Failure, ...]


class FailingError(InvalidInputError):
    """A template fails for some of the users whom it concerns."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        """Keep the numbers, and name the first users in the text."""
        numbers = f"{rehearsal.failing} of the {rehearsal.tried} users whom it concerns"
        named = (FieldError("", f"user {one.user_id}: {one.reason}") for one in rehearsal.first)
        super().__init__(FieldError("", f"it fails for {numbers}; nothing was published"), *named)
        self.rehearsal = rehearsal


OnTried = Callable[[int], Awaitable[None]]
"""Is told how many users have been tried so far."""


async def _nobody_listens(_tried: int) -> None:
    """Tell nobody."""


async def publish_template(
    pool: asyncpg.Pool,
    key: tuple[str, str],
    template: Template,
    author: Author,
    site: Site,
    *,
    force: bool = False,
    on_tried: OnTried = _nobody_listens,
    check: Callable[[Version | None], None] | None = None,
) -> Published:
    """Publish a template under ``(type, locale)``, unless it fails for somebody; ``force`` publishes it all the same.

    ``check`` gets what is active: before the users are tried, and again when nobody else can publish any more. What it
    raises ends the publication. A source that is active already is not tried, and makes no new version.

    Raises:
        InvalidInputError: if it fails for somebody made up; FailingError if it fails for a user.
        ConflictError: if the type has no default yet.
        UnavailableError: if the database cannot be used.
    """
    async with borrow(pool) as connection:
        active = await _read_active(connection, key)
    if check is not None:
        check(active)
    if active is not None and active.source == template.source:
        return Published(active.key, is_new=False)
    rehearsal = await rehearse(pool, key, template, author.at, site, on_tried)
    if rehearsal.failing and not force:
        raise FailingError(rehearsal)
    async with borrow(pool) as connection, connection.transaction():
        if check is not None:
            await hold(connection)
            check(await _read_active(connection, key))
        published, is_new = await publish(connection, *key, template.source, author.at, author.name)
        if is_new:
            change = author.by.change("published", TEMPLATE, template_name(*key), after={"version": published.version})
            await record_changes(connection, [change], author.at)
    numbers = {"tried": rehearsal.tried, "failing": rehearsal.failing}
    log.info("template.published", **published._asdict(), by=author.name, **numbers)
    return Published(published, is_new, **numbers)


async def rehearse(
    pool: asyncpg.Pool, key: tuple[str, str], template: Template, at: datetime, site: Site, on_tried: OnTried
) -> Rehearsal:
    """Try a template for everybody whom it would concern under ``(type, locale)``, and publish nothing.

    Raises:
        InvalidInputError: if it fails for somebody made up.
        UnavailableError: if the database cannot be used.
    """
    try_samples(template, key[0], at, site)
    tried, failing, first, since = 0, 0, list[Failure](), time.perf_counter()
    after: UUID | None = UUID(int=0)
    while after is not None:
        async with borrow(pool) as connection:
            people, after = await read_concerned(connection, *key, after, _PAGE)
        for person in people:
            try:
                template.render(values_of(person, key[0], at.date(), site))
            except RenderError as error:
                failing += 1
                if len(first) < NAMED:
                    first.append(Failure(person.id, str(error)))
            if time.perf_counter() - since > _TURN_SECONDS:
                await asyncio.sleep(0)
                since = time.perf_counter()
        tried += len(people)
        await on_tried(tried)
    return Rehearsal(tried, failing, tuple(first))


async def activate_version(
    pool: asyncpg.Pool, key: TemplateKey, author: Author, check: Callable[[Version | None], None] | None = None
) -> None:
    """Make an older version active again, or withdraw the template of a locale with version 0.

    ``check`` gets what was active before. What it raises takes the change back.

    Raises:
        NotFoundError: if there is no such version.
        ConflictError: if the type would have no default any more.
        UnavailableError: if the database cannot be used.
    """
    async with borrow(pool) as connection, connection.transaction():
        await hold(connection)
        active = None if check is None else await _read_active(connection, key[:2])
        before = await activate(connection, key, author.at, author.name)
        if check is not None:
            check(active)
        versions = ({"version": version} for version in (before, key.version))
        change = author.by.change("activated", TEMPLATE, template_name(*key[:2]), *versions)
        await record_changes(connection, [change], author.at)
    log.info("template.activated", **key._asdict(), by=author.name)


def try_samples(template: Template, message_type: str, now: datetime, site: Site) -> None:
    """Render a template for made-up people. An attribute that they lack is no failure: real users may have it.

    Raises:
        InvalidInputError: if it fails.
    """
    for values in (sample(message_type, now.date(), site), sample(message_type, now.date(), site, last_name="")):
        try:
            template.render(values)
        except RenderError as error:
            if not error.lacks_attribute:
                raise InvalidInputError(FieldError("", f"it fails for a made-up user: {error}")) from None


async def _read_active(connection: Connection, key: tuple[str, str]) -> Version | None:
    try:
        return await read_version(connection, *key)
    except NotFoundError:
        return None
