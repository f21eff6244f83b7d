"""What a template is: what one message type says in one locale. How it is written is in ``content/``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Final, NamedTuple

from birthday.core.fields import TYPE_PATTERN, check_locale
from birthday.core.message import BIRTHDAY
from birthday.errors import FieldError, InvalidInputError

DEFAULT: Final = "default"
"""The locale of the template for everybody who has no nearer one."""


class TemplateKey(NamedTuple):
    """One version of a template. Version 0 is what is built in."""

    message_type: str
    locale: str
    version: int


BUILT_IN: Final = TemplateKey(BIRTHDAY, DEFAULT, 0)


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a template: ``subject`` and ``html`` are for e-mail, ``payload`` is JSON for the message service."""

    message: str
    subject: str | None = None
    html: str | None = None
    payload: str | None = None


BUILT_IN_SOURCE: Final = Source("Hey, {{ first_name }} {{ last_name }} it's your birthday")
PARTS: Final = tuple(field.name for field in fields(Source))


class Values(NamedTuple):
    """What a template can say of one message. None is what is not known.

    ``date`` is the local date that is greeted. ``years`` is the age, or how many years ago an anniversary's first day
    was. ``locale`` is the user's.
    """

    first_name: str
    last_name: str
    email: str
    locale: str | None
    type: str
    date: date
    years: int | None
    attributes: Mapping[str, Any]
    message_id: str
    unsubscribe_url: str | None = None


def template_name(message_type: str, locale: str) -> str:
    """Return the name of a template in metrics and tables, such as ``birthday`` or ``birthday.pt``."""
    return message_type if locale == DEFAULT else f"{message_type}.{locale}"


def parse_type(text: str) -> str:
    """Return a message type.

    Raises:
        InvalidInputError: if it is none.
    """
    if not re.fullmatch(TYPE_PATTERN, text):
        detail = f"{text!r} is no message type; one such as birthday or work-anniversary is accepted"
        raise InvalidInputError(FieldError("/type", detail))
    return text


def parse_locale(text: str) -> str:
    """Return the locale of a template in the usual spelling, such as ``pt-BR`` or ``zh-Hant``, or ``default``.

    Raises:
        InvalidInputError: if it is none.
    """
    try:
        return text if text == DEFAULT else check_locale(text)
    except ValueError as error:
        raise InvalidInputError(FieldError("/locale", f"{error}, or {DEFAULT}")) from None
