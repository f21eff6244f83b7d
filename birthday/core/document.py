"""Untrusted JSON: it is parsed, and refused if it is nested too deep, or is not what a model accepts."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from birthday.core.text import UNREADABLE
from birthday.errors import FieldError, InvalidInputError

_Model = TypeVar("_Model", bound=BaseModel)

MAX_DEPTH = 64
"""How deep arrays and objects may be nested. The limit keeps later recursion far from Python's own limit."""
_TOO_DEEP: Final = f"it is nested too deep: at most {MAX_DEPTH} levels are accepted"

_OBJECT: Final = "a JSON object is accepted"
_WHOLE: Final = "a whole number is accepted"
_ID: Final = "an id is accepted, a UUID"
_WORDS: Final = {
    "missing": "is required",
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "dict_type": _OBJECT,
    "string_type": "text is accepted",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long: at most {max_length} characters are accepted",
    "string_pattern_mismatch": f"text without {UNREADABLE} is accepted",
    "enum": "one of {expected} is accepted",
    "bool_type": "true or false is accepted",
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "finite_number": _WHOLE,
    "greater_than_equal": "a whole number from {ge} is accepted",
    "less_than_equal": "a whole number up to {le} is accepted",
    "uuid_type": _ID,
    "uuid_parsing": _ID,
}


def parse_json(text: bytes) -> object:
    """Return the value that ``text`` contains.

    Raises:
        ValueError: if ``text`` is not JSON, or nested too deep; the error quotes nothing of it.
    """
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # If it is nested very deep, orjson speaks of its memory.
        if "memory" in error.msg or "depth" in error.msg:
            raise ValueError(_TOO_DEEP) from None
        raise ValueError(f"{error.msg} at column {error.colno}" if text else "it is empty") from None
    # Brackets are counted first: that is fast, and few documents have enough of them to be nested too deep.
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        raise ValueError(_TOO_DEEP)
    return value


def validate(model: type[_Model], data: object) -> _Model:
    """Return parsed JSON as a model.

    Raises:
        InvalidInputError: with every member that is wrong.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InvalidInputError(*what_is_wrong(error, model, "accepted here")) from None


def what_is_wrong(error: ValidationError, model: type[BaseModel], known: str) -> Iterator[FieldError]:
    """Yield an error for each member that a model refuses; ``known`` says what an unknown one is not."""
    found = error.errors(include_url=False, include_input=False)
    for one in sorted(found, key=lambda one: one["type"] != "extra_forbidden"):
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in one["loc"])
        accepted = f"; accepted are {', '.join(names_of(model))}" if len(one["loc"]) == 1 else ""
        if one["type"] == "extra_forbidden":
            yield FieldError(pointer, f"is not {known}{accepted}")
        else:
            yield FieldError(pointer, say(one["type"], one["msg"], one.get("ctx", {})))


def names_of(model: type[BaseModel]) -> list[str]:
    """Return the names of the members that a model takes."""
    return [field.alias or name for name, field in model.model_fields.items()]


def say(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """Return what pydantic finds wrong in our words: what is accepted, and nothing of what was given."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return _WORDS.get(kind, "is not accepted").format_map(context)


def is_deeper(value: object, levels: int) -> bool:
    """Say whether arrays and objects are nested deeper than so many levels."""
    level, depth = [value], 0
    while depth <= levels and (containers := [item for item in level if isinstance(item, dict | list)]):
        depth += 1
        level = [inner for outer in containers for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth > levels
