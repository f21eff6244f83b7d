"""Untrusted JSON: it is parsed, and refused if it is nested too deep, or is not what a model accepts."""

from collections.abc import Iterator
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from birthday.errors import FieldError, InvalidInputError

_Model = TypeVar("_Model", bound=BaseModel)

MAX_DEPTH = 64
"""How deep arrays and objects may be nested. The limit keeps later recursion far from Python's own limit."""


def parse_json(text: bytes) -> object:
    """Return the value that ``text`` contains.

    Raises:
        ValueError: if ``text`` is not JSON, or nested too deep; the error quotes nothing of it.
    """
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from None
    # Brackets are counted first: that is fast, and few documents have enough of them to be nested too deep.
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        raise ValueError(f"it is nested too deep: at most {MAX_DEPTH} levels are accepted")
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
        yield FieldError(pointer, _detail(one["type"], one["msg"], f"is not {known}{accepted}"))


def names_of(model: type[BaseModel]) -> list[str]:
    """Return the names of the members that a model takes."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _detail(kind: str, message: str, unknown: str) -> str:
    match kind:
        case "extra_forbidden":
            return unknown
        case "missing":
            return "is required"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "a JSON object is accepted"
        case _:
            return message.removeprefix("Value error, ")


def is_deeper(value: object, levels: int) -> bool:
    """Say whether arrays and objects are nested deeper than so many levels."""
    level, depth = [value], 0
    while depth <= levels and (containers := [item for item in level if isinstance(item, dict | list)]):
        depth += 1
        level = [inner for outer in containers for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth > levels
