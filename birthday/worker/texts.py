"""What messages say: the templates of claimed messages, read and compiled when they are first needed.

A version never changes, so nothing that is kept here can be out of date. Which version a message has is decided by the
claim: when another one is made active, the next claim of every worker has it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, TypeAlias

import asyncpg
import orjson
import structlog

from birthday.content import Rendered, RenderError, Template
from birthday.core.dates import years_since
from birthday.core.template import BUILT_IN, Source, TemplateKey, Values, template_name
from birthday.errors import InvalidInputError
from birthday.operations.templates.compiling import Compiler, CompilerEndedError
from birthday.store.claims import Claim
from birthday.store.connection import borrow
from birthday.store.templates import read_sources

log = structlog.get_logger()

Text: TypeAlias = Template | RenderError
"""A compiled template, or why it cannot be compiled."""

KEPT: Final = 200


class Texts:
    """The templates that were used last."""

    def __init__(self, pool: asyncpg.Pool, compiler: Compiler) -> None:
        self._pool = pool
        self._compiler = compiler
        self._kept: OrderedDict[TemplateKey, Text] = OrderedDict()

    async def load(self, claims: Iterable[Claim]) -> dict[TemplateKey, Text]:
        """Return what the claimed messages say, except for what is built in.

        Raises:
            UnavailableError: if the database cannot be used.
        """
        keys = {key for claim in claims if (key := claim.template) is not None and key != BUILT_IN}
        # Loads overlap, and each drops what was not used lately: hold what is kept before the first wait.
        found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [key for key in keys if key not in found]
        if missing:
            async with borrow(self._pool) as connection:
                sources = await read_sources(connection, missing)
            for key, source in sources.items():
                found[key] = await self._compile(key, source)
        for key, text in found.items():
            self._kept[key] = text
            self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    async def _compile(self, key: TemplateKey, source: Source) -> Text:
        """Compile a template. It was accepted when it was published, but perhaps by a program with other limits.

        If the compiler ends all the same, that may be a fault of this host, which must not fail messages.
        """
        try:
            try:
                return await self._compiler.compile(source, key.locale)
            except CompilerEndedError as error:
                log.warning("template.compiler_lost", reason=str(error))
                return await asyncio.to_thread(Template, source, key.locale)
        except InvalidInputError as error:
            return RenderError(str(error))


def say(text: Text | None, claim: Claim, unsubscribe_url: str | None = None) -> Rendered:
    """Return what a claimed message says.

    Raises:
        RenderError: if there is no template, or it says nothing for this user; the text has no personal data.
    """
    key = claim.template
    if key is None or text is None:
        raise RenderError(f"there is no template of the type {claim.message_type}")
    try:
        if isinstance(text, RenderError):
            raise text
        return text.render(_values(claim, unsubscribe_url))
    except RenderError as error:
        name = template_name(key.message_type, key.locale)
        raise RenderError(f"template {name}, version {key.version}: {error}") from None


def _values(claim: Claim, unsubscribe_url: str | None) -> Values:
    return Values(
        claim.first_name,
        claim.last_name,
        claim.email,
        claim.locale,
        claim.message_type,
        claim.occasion_on,
        None if claim.day is None else years_since(claim.day, claim.year),
        {} if claim.attributes is None else orjson.loads(claim.attributes),
        str(claim.id),
        unsubscribe_url,
    )
