"""A template: compiled once, then rendered for each message that it is chosen for."""

import re
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from functools import cache
from typing import Any, Final, NamedTuple, assert_never

import jinja2
import orjson
from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from birthday.content.budget import RUN, Run
from birthday.content.errors import MissingAttributeError, RenderError, fail
from birthday.content.filters import Json, bounded, filters, shown, tests
from birthday.content.grammar import parse
from birthday.content.language import Language
from birthday.core.document import parse_json
from birthday.core.template import Source, Values
from birthday.core.text import CONTROL
from birthday.errors import FieldError, InvalidInputError

_NAMES: Final = frozenset(
    {"first_name", "last_name", "full_name", "email", "locale", "type", "date", "years", "attributes"}
    | {"message_id", "unsubscribe_url"}
)
_DATE_PARTS: Final = frozenset({"year", "month", "day"})
_LOOP_PARTS: Final = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})
_ERRORS: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What an expression raises if a value is not as the template expects."""
_CONTROL: Final = re.compile(f"[{CONTROL}]")
_HALF: Final = re.compile(r"[\ud800-\udfff]")


class Part(StrEnum):
    """A part of a template, each rendered in its own way."""

    MESSAGE = "message"
    SUBJECT = "subject"
    HTML = "html"
    PAYLOAD = "payload"


SOURCE_CHARACTERS: Final = {Part.MESSAGE: 16_384, Part.SUBJECT: 1_000, Part.HTML: 131_072, Part.PAYLOAD: 65_536}
RESULT_CHARACTERS: Final = {Part.MESSAGE: 16_384, Part.SUBJECT: 900, Part.HTML: 262_144, Part.PAYLOAD: 524_288}
"""How long a source, and what it becomes, may be. A line of an e-mail has at most 998 bytes."""


class Rendered(NamedTuple):
    """What is said to one user."""

    message: str
    subject: str | None = None
    html: str | None = None
    payload: bytes | None = None


class _Environment(ImmutableSandboxedEnvironment):
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
def _environment(part: Part) -> _Environment:
    environment = _Environment(
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


class Template:
    """A template of one locale. To make one takes milliseconds, so that should not be done on the event loop."""

    def __init__(self, source: Source, locale: str) -> None:
        """Compile all parts.

        Raises:
            InvalidInputError: with everything that is wrong with the source.
        """
        self._language = Language(locale)
        self._parts: dict[Part, jinja2.Template] = {}
        errors = []
        for part in Part:
            text = getattr(source, part)
            try:
                if text is not None:
                    self._parts[part] = _compile(part, text)
            except ValueError as error:
                errors.append(FieldError(f"/{part}", str(error)))
        if errors:
            raise InvalidInputError(*errors)

    def render(self, values: Values, mark: str = "") -> Rendered:
        """Return what the template says of ``values``. ``mark`` is put before message and subject.

        Raises:
            RenderError: if it cannot say anything; the text has no personal data.
        """
        names = {
            "first_name": values.first_name,
            "last_name": values.last_name,
            "full_name": f"{values.first_name} {values.last_name}" if values.last_name else values.first_name,
            "email": values.email,
            "locale": values.locale,
            "type": values.type,
            "date": values.date,
            "years": values.years,
            "attributes": values.attributes,
            "message_id": values.message_id,
            "unsubscribe_url": values.unsubscribe_url,
            RUN: Run(self._language),
        }
        said: dict[str, str] = {}
        for part in self._parts:
            prefix = mark if mark and part in {Part.MESSAGE, Part.SUBJECT} else ""
            said[part] = prefix + _finish(part, self._text(part, names | said if part is Part.PAYLOAD else names))
        # By text, not by member: Python takes as long for four members as for a variable of the template.
        payload = said.get("payload")
        return Rendered(
            said["message"],
            said.get("subject", f"{mark}{values.type}" if mark else None),
            said.get("html"),
            None if payload is None else payload.encode(),
        )

    def _text(self, part: Part, names: dict[str, Any]) -> str:
        template = self._parts[part]
        try:
            return _joined(template.root_render_func(template.new_context(names, shared=True)), RESULT_CHARACTERS[part])
        except RenderError as error:
            raise RenderError(f"{_place(part, template, error)}: {error}") from None
        except MissingAttributeError as error:
            raise RenderError(f"{_place(part, template, error)}: {error}", lacks_attribute=True) from None
        except _ERRORS as error:
            # The text of another error may quote a value.
            told = isinstance(error, UndefinedError | TypeError | ZeroDivisionError)
            reason = str(error) if told else f"an error of the kind {type(error).__name__}"
            raise RenderError(f"{_place(part, template, error)}: {reason}") from None


def _compile(part: Part, text: str) -> jinja2.Template:
    if len(text) > SOURCE_CHARACTERS[part]:
        raise ValueError(f"is too long: at most {SOURCE_CHARACTERS[part]} characters are accepted")
    if "\0" in text:
        raise ValueError("has the character U+0000, which cannot be stored")
    environment = _environment(part)
    tree = parse(environment, text, _NAMES | {*list(Part)[:-1]} if part is Part.PAYLOAD else _NAMES)
    try:
        code = environment.compile(tree, filename=_file_name(part))
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None
    return environment.template_class.from_code(environment, code, {})


def _joined(pieces: Iterator[str], room: int) -> str:
    """Join what a template prints. A value that is empty takes one blank beside it with it.

    Raises:
        RenderError: if there is no more room.
    """
    done: list[str] = []
    begins_line = False
    for printed in pieces:
        piece = printed
        if not piece:
            begins_line = not done or done[-1].endswith("\n")
            if not begins_line and done[-1].endswith(" "):
                done.append(done.pop()[:-1])
            continue
        if begins_line:
            piece, begins_line = piece.removeprefix(" "), False
        room -= len(piece)
        if room < 0:
            fail("it becomes too long")
        if piece:
            done.append(piece)
    return "".join(done)


def _finish(part: Part, text: str) -> str:
    """Return a rendered part as it is sent.

    Raises:
        RenderError: if it cannot be sent.
    """
    match part:
        case Part.MESSAGE | Part.HTML:
            text = text.strip()
        case Part.PAYLOAD:
            try:
                parse_json(text.encode())
            except ValueError as error:
                raise RenderError(f"{part}: what was rendered is not JSON: {error}") from None
        case Part.SUBJECT:
            # On one line: a line break would begin another header.
            text = " ".join(text.split())
            if _CONTROL.search(text):
                raise RenderError(f"{part}: it has control characters")
        case _:
            assert_never(part)
    if not text:
        raise RenderError(f"{part}: it says nothing")
    if not text.isascii() and _HALF.search(text):
        raise RenderError(f"{part}: it has a half of a surrogate pair, which is no character")
    return text


def _file_name(part: Part) -> str:
    return f"<template {part}>"


def _place(part: Part, template: jinja2.Template, error: BaseException) -> str:
    """Return part and line of an error."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _file_name(part):
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return f"{part}, line {line}" if line else part
