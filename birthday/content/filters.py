"""What a template can do with a value: the filters and tests, each of which takes a bounded number of steps."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any, Final

from jinja2 import Environment, Undefined, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.tests import TESTS

from birthday.content.budget import FORMAT_STEPS, MAX_TEXT, run_of
from birthday.content.errors import fail
from birthday.content.language import MAX_NUMBER

_JINJA_FILTERS: Final = (
    "capitalize",
    "count",
    "d",
    "default",
    "first",
    "items",
    "last",
    "length",
    "lower",
    "sort",
    "title",
    "trim",
    "truncate",
    "upper",
    "urlencode",
)
TESTS_ACCEPTED: Final = ("defined", "undefined", "none", "string", "number", "mapping", "even", "odd", "divisibleby")
_COST: Final = {"title": 4}
"""Filters that take longer for each character than the others, and how many times as long."""
EACH: Final = "_each"
SCALAR: Final = "_scalar"
CONTAINER: Final = "_container"
CONCAT: Final = "_concat"
"""What the grammar puts around loops, comparisons and ``~``; a template cannot name them."""


class Json(str):
    """A JSON value as text."""

    __slots__ = ()


def shown(value: object) -> str:
    """Return a value as the text that is printed. What would be printed by mistake is an error.

    Raises:
        RenderError: for what is not known (None), a truth value, a list or an object.
    """
    if isinstance(value, str):
        return value
    if value is None:
        fail("a value is not known (None): test it with 'is none', or name another with the filter default(..., true)")
    if isinstance(value, Undefined):
        # Raises that it is undefined, except for an 'if' without 'else', which prints nothing.
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float | date):
        fail(f"a value of the type {type(value).__name__} cannot be printed: text, a number or a date can")
    return str(value)


def filters() -> dict[str, Any]:
    """Return all filters by name."""
    own = {"date": _date, "int": _int, "join": _join, "number": _number, "ordinal": _ordinal, "tojson": _tojson}
    inner = {EACH: _each, SCALAR: _scalar, CONTAINER: _container, CONCAT: _concat}
    return {name: _counted(FILTERS[name], _COST.get(name, 1)) for name in _JINJA_FILTERS} | own | inner


def tests() -> dict[str, Any]:
    """Return all tests by name."""
    return {name: TESTS[name] for name in TESTS_ACCEPTED}


def _counted(function: Callable[..., Any], cost: int) -> Callable[..., Any]:
    """Return a filter of Jinja's that takes as many steps as its value is long, times ``cost``."""
    from_context = getattr(function, "jinja_pass_arg", None)

    @pass_context
    def counted(context: Context, value: object, *args: object, **options: object) -> object:
        run_of(context).spend_on(value, cost)
        if from_context is None:
            return function(value, *args, **options)
        first: Environment | object = context.environment if from_context.name == "environment" else context.eval_ctx
        return function(first, value, *args, **options)

    return counted


@pass_context
def _date(context: Context, value: object, form: str = "long") -> str:
    """Format a date, or text in the form of one."""
    run = run_of(context)
    run.spend(FORMAT_STEPS)
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        fail("the filter date takes a date, or text such as 2019-03-04")
    if not isinstance(day, date):
        fail(f"the filter date takes a date, not a value of the type {type(value).__name__}")
    return run.language.date(day, form)


@pass_context
def _number(context: Context, value: object) -> str:
    run = run_of(context)
    run.spend(FORMAT_STEPS)
    return run.language.number(_bounded(value, "number"))


@pass_context
def _ordinal(context: Context, value: object) -> str:
    number = _bounded(value, "ordinal")
    if not isinstance(number, int):
        fail("the filter ordinal takes a whole number")
    run = run_of(context)
    run.spend(FORMAT_STEPS)
    return run.language.ordinal(number)


def _int(value: object) -> int:
    """Return a whole number from a number or text. Jinja's own would return 0 for other text."""
    if isinstance(value, str) and len(value) > len(str(MAX_NUMBER)):
        fail("the filter int takes at most 16 digits")
    try:
        return int(_bounded(int(value) if isinstance(value, str) else value, "int"))
    except ValueError:
        fail("the filter int takes a whole number, or text that is one")


def _bounded(value: object, name: str) -> Any:  # noqa: ANN401 - a number
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(f"the filter {name} takes a number, not a value of the type {type(value).__name__}")
    return bounded(value)


def bounded(value: Any) -> Any:  # noqa: ANN401 - what an operator takes is checked here
    """Return a number that templates may calculate with.

    Raises:
        RenderError: if it is no number, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(f"+, -, *, /, // and % take numbers, not a value of the type {type(value).__name__}; ~ joins text")
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        fail(f"a number is too large: at most {MAX_NUMBER} is accepted")
    return value


@pass_context
def _join(context: Context, value: object, separator: str = "") -> str:
    """Join what a list contains. The text that comes out is bounded."""
    if not isinstance(value, list | tuple):
        fail("the filter join takes a list")
    run_of(context).spend_on(value)
    if len(separator) * len(value) > MAX_TEXT:
        fail(f"the filter join makes too long a text: at most {MAX_TEXT} characters are accepted")
    return _concatenated(context, [shown(item) for item in value], shown(separator))


@pass_context
def _concat(context: Context, values: list[object]) -> str:
    """The operator ``~``."""
    return _concatenated(context, [shown(value) for value in values])


def _concatenated(context: Context, texts: list[str], separator: str = "") -> str:
    if sum(map(len, texts)) > MAX_TEXT:
        fail(f"a text that is put together is too long: at most {MAX_TEXT} characters are accepted")
    text = separator.join(texts)
    run_of(context).spend_on(text)
    return text


@pass_context
def _tojson(context: Context, value: object) -> Json:
    """Return a value as JSON, quotes included: for a payload."""
    run = run_of(context)
    text = json.dumps(value, ensure_ascii=False, default=_as_text)
    run.spend_on(text)
    return Json(text)


def _as_text(value: object) -> str:
    return shown(value)


@pass_context
def _each(context: Context, value: object, steps: int) -> object:
    """Take the steps of a loop before it begins. A loop over an object is over its names."""
    if isinstance(value, Undefined):
        iter(value)  # Raises that it is undefined.
    found = list(value) if isinstance(value, Mapping | Iterator) else value
    if not isinstance(found, list | tuple):
        fail(f"a loop goes over a list or an object, not over a value of the type {type(value).__name__}")
    run_of(context).spend(len(found) * steps)
    return found


@pass_context
def _scalar(context: Context, value: object) -> object:
    """Let no list or object be compared, because that could take long."""
    if isinstance(value, list | tuple | Mapping):
        fail("a list or an object cannot be compared: compare what it contains, or its length")
    run_of(context).spend_on(value)
    return value


@pass_context
def _container(context: Context, value: object) -> object:
    """Take the steps of looking for something in a value."""
    run_of(context).spend_on(value)
    return value
