"""What names and filters a template can use, each with an example: for whoever writes one."""

from datetime import date
from typing import Final, NamedTuple

from birthday.content import RenderError
from birthday.core.template import Source
from birthday.operations.templates.compiling import compile_template
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
    for source in (*NAMES, *FILTERS):
        template = await compile_template(Source(source), locale)
        try:
            found.append(Example(source, template.render(values).message))
        except RenderError:
            found.append(Example(source, None))
    return found
