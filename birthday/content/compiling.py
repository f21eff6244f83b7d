"""Compiles the source of a template. This may take up to a second, if the source is made to last."""

from types import CodeType
from typing import Final, TypeAlias

from jinja2 import TemplateSyntaxError

from birthday.content.environment import Part, environment_of
from birthday.content.grammar import parse
from birthday.core.template import Source
from birthday.errors import FieldError, InvalidInputError

Codes: TypeAlias = dict[Part, CodeType]
"""The code of each part that a template has."""

_NAMES: Final = frozenset(
    {"first_name", "last_name", "full_name", "email", "locale", "type", "date", "years", "attributes"}
    | {"message_id", "unsubscribe_url"}
)
SOURCE_CHARACTERS: Final = {Part.MESSAGE: 16_384, Part.SUBJECT: 1_000, Part.HTML: 131_072, Part.PAYLOAD: 65_536}
"""How long a source may be."""


def compile_parts(source: Source) -> Codes:
    """Compile all parts.

    Raises:
        InvalidInputError: with everything that is wrong with the source.
    """
    codes: Codes = {}
    errors = []
    for part in Part:
        text = getattr(source, part)
        try:
            if text is not None:
                codes[part] = _compile(part, text)
        except ValueError as error:
            errors.append(FieldError(f"/{part}", str(error)))
    if errors:
        raise InvalidInputError(*errors)
    return codes


def file_name(part: Part) -> str:
    """Return what a traceback calls the file of a part."""
    return f"<template {part}>"


def _compile(part: Part, text: str) -> CodeType:
    if len(text) > SOURCE_CHARACTERS[part]:
        raise ValueError(f"is too long: at most {SOURCE_CHARACTERS[part]} characters are accepted")
    if "\0" in text:
        raise ValueError("has the character U+0000, which cannot be stored")
    environment = environment_of(part)
    tree = parse(environment, text, _NAMES | {*list(Part)[:-1]} if part is Part.PAYLOAD else _NAMES)
    try:
        return environment.compile(tree, filename=file_name(part))
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None
