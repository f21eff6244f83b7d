"""A template: compiled once, then rendered for each message that it is chosen for."""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, assert_never

import jinja2
from jinja2 import UndefinedError

from birthday.content.budget import RUN, Run
from birthday.content.compiling import Codes, compile_parts, file_name
from birthday.content.environment import Part, environment_of
from birthday.content.errors import MissingAttributeError, RenderError, fail
from birthday.content.language import Language
from birthday.core.document import parse_json
from birthday.core.template import Source, Values
from birthday.core.text import CONTROL

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
RESULT_CHARACTERS: Final = {Part.MESSAGE: 16_384, Part.SUBJECT: 900, Part.HTML: 262_144, Part.PAYLOAD: 524_288}
"""How long a part may become. A line of an e-mail has at most 998 bytes."""


class Rendered(NamedTuple):
    """What is said to one user."""

    message: str
    subject: str | None = None
    html: str | None = None
    payload: bytes | None = None


class Template:
    """A template of one locale."""

    def __init__(self, source: Source, locale: str, codes: Codes | None = None) -> None:
        """Make a template of compiled parts: ``codes``, or what is compiled here. Either takes milliseconds.

        Raises:
            InvalidInputError: with everything that is wrong with the source.
        """
        self.source = source
        self.locale = locale
        self._language = Language(locale)
        self._parts = {
            part: jinja2.Template.from_code(environment_of(part), code, {})
            for part, code in (compile_parts(source) if codes is None else codes).items()
        }

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


def _place(part: Part, template: jinja2.Template, error: BaseException) -> str:
    """Return part and line of an error."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file_name(part):
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return f"{part}, line {line}" if line else part
