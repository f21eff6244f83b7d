"""What names and filters a template can use, each with an example: for whoever writes one."""

import asyncio
from datetime import date
from functools import cache
from typing import Final, NamedTuple

from birthday.content import RenderError, Template
from birthday.content.compiling import Codes, compile_parts
from birthday.core.template import Source
from birthday.operations.templates.values import Site, sample

NAMES: Final = (
    "{{ first_name }}",
    "{{ last_name }}",
    "{{ full_name }}",
    "{{ email }}",
    "{{ years }}",
    "{{ date | date }}",
    "{{ attributes.team }}",
    "{{ attributes.team | default('all') }}",
    "{{ unsubscribe_url | default('-', true) }}",
)
FILTERS: Final = (
    "{{ years | ordinal }}",
    "{{ date | date('MMMMd') }}",
    "{{ date | date('full') }}",
    "{{ 12345 | number }}",
    "{{ first_name | upper }}",
    "{% if years is not none %}{{ years }}!{% endif %}",
    "{% if attributes.team is defined %}{{ attributes.team }}{% endif %}",
)
_ATTRIBUTES: Final = {"team": "Red"}


class Example(NamedTuple):
    """A piece of a template, and what it says in one language; None if it says nothing there."""

    source: str
    result: str | None


async def show_examples(locale: str, message_type: str, today: date, site: Site) -> list[Example]:
    """Return the examples in the language of a template."""
    values = sample(message_type, today, site, attributes=_ATTRIBUTES)
    found = []
    # In a thread, because the data of the language may have to be read. The sources are ours, so they are harmless.
    for template in await asyncio.to_thread(_compile_all, locale):
        try:
            found.append(Example(template.source.message, template.render(values).message))
        except RenderError:
            found.append(Example(template.source.message, None))
    return found


def _compile_all(locale: str) -> list[Template]:
    return [Template(source, locale, _codes(source)) for source in map(Source, (*NAMES, *FILTERS))]


@cache
def _codes(source: Source) -> Codes:
    """Compile a source once for all languages."""
    return compile_parts(source)
