"""The environments of Jinja2 that templates are compiled for and rendered in, one for each part of a template."""

from datetime import date
from enum import StrEnum
from functools import cache
from typing import Any, Final

import orjson
from jinja2 import StrictUndefined, Undefined
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from birthday.content.errors import MissingAttributeError
from birthday.content.filters import Json, bounded, filters, shown, tests

_DATE_PARTS: Final = frozenset({"year", "month", "day"})
_LOOP_PARTS: Final = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})


class Part(StrEnum):
    """A part of a template, each rendered in its own way."""

    MESSAGE = "message"
    SUBJECT = "subject"
    HTML = "html"
    PAYLOAD = "payload"


class Environment(ImmutableSandboxedEnvironment):
    """Jinja2 without calls: an attribute is a member of an object, or part of a date or of ``loop``."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401 - Jinja2's
        """Return what stands behind a dot."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:  # noqa: ANN401 - Jinja2's
        """Return what stands in brackets."""
        if isinstance(obj, dict):
            if isinstance(argument, str) and argument in obj:
                return obj[argument]
            hint = f"there is no attribute {str(argument)!r}: name another value with the filter default"
            return self.undefined(hint, name=argument, exc=MissingAttributeError)
        if isinstance(obj, list | tuple | str) and type(argument) is int and -len(obj) <= argument < len(obj):
            return obj[argument]
        if (isinstance(obj, date) and argument in _DATE_PARTS) or (
            isinstance(obj, LoopContext) and argument in _LOOP_PARTS
        ):
            return getattr(obj, argument)
        if isinstance(obj, Undefined):
            return obj
        return self.undefined(f"a value of the type {type(obj).__name__} has no {str(argument)!r}", name=argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - Jinja2's
        """Calculate with numbers only."""
        return super().call_binop(context, operator, bounded(left), bounded(right))


@cache
def environment_of(part: Part) -> Environment:
    """Return the environment of a part."""
    environment = Environment(
        autoescape=part is Part.HTML,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_as_json if part is Part.PAYLOAD else shown,
        # What is constant would be computed while it is compiled, without any bound.
        optimized=False,
        cache_size=0,
    )
    environment.globals.clear()
    environment.filters = filters()
    environment.tests = tests()
    return environment


def _as_json(value: object) -> str:
    """Return a value as it stands between the quotes of a JSON string, or what ``tojson`` has made."""
    if isinstance(value, Json):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return orjson.dumps(shown(value)).decode()[1:-1]
