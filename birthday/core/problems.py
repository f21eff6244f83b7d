"""What pydantic finds wrong with a user, in our own words."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from birthday.core.text import BIDI, CONTROL, show
from birthday.errors import FieldError

_FORBIDDEN = re.compile(rf"[{CONTROL}{BIDI}]")


def field_errors(error: ValidationError, data: Mapping[str, Any], accepted: Sequence[str]) -> list[FieldError]:
    """Return an error for each field of ``data`` that is wrong; ``accepted`` are the names of all fields."""
    fields = []
    for problem in error.errors(include_url=False, include_input=False):
        # A date of an object is found at (field, name), and a name that is wrong at (field, name, "[key]").
        path = [str(part) for part in problem["loc"][:2]]
        value: Any = data
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        detail = _detail(problem["type"], problem["msg"], problem.get("ctx", {}), value, path[0])
        if problem["type"] == "extra_forbidden":
            detail = f"is not a field of a user; accepted are {', '.join(accepted)}"
        fields.append(FieldError("".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path), detail))
    return fields


def _detail(kind: str, message: str, context: Mapping[str, Any], value: object, name: str) -> str:
    shown = show(value)
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch" and name == "externalId":
        return f"{shown} is not an id; visible characters, with blanks between them, are accepted"
    if kind == "string_pattern_mismatch" and _FORBIDDEN.search(str(value)):
        accepted = "text without control characters and without characters that turn the direction of writing"
        return f"{shown} is not a name; {accepted} is accepted"
    if kind == "string_pattern_mismatch":
        return f"{shown} is not a name: nothing of it can be seen; text with a visible character is accepted"
    details = {
        "missing": "is required",
        "string_type": f"{shown} is not text",
        "int_type": f"{shown} is not a whole number of minutes east of UTC, such as 420 for UTC+07:00",
        "bool_type": f"{shown} is not accepted; true or false is",
        "dict_type": f'{shown} is not a JSON object; one such as {{"work-anniversary": "2019-03-04"}} is accepted',
        "string_too_short": "must not be empty",
    }
    if kind == "string_too_long":
        return f"is too long: at most {context['max_length']} characters are accepted"
    if kind == "too_long":
        return f"has more dates than the {context['max_length']} that are accepted"
    return details.get(kind, message)
