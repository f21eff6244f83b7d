"""What pydantic finds wrong with a user, in our own words."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from birthday.core.document import say
from birthday.core.text import BIDI, CONTROL, UNREADABLE, name_of, show
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
    """Say what is accepted, and what is wrong without the value: it may be personal."""
    if kind == "string_pattern_mismatch" and name == "externalId":
        return "is not an id; visible characters, with blanks between them, are accepted"
    if kind == "string_pattern_mismatch" and (forbidden := _FORBIDDEN.search(str(value))):
        return f"is not a name: {name_of(forbidden[0])} is in it; text without {UNREADABLE} is accepted"
    if kind == "string_pattern_mismatch":
        return "is not a name: nothing of it can be seen; text with a visible character is accepted"
    details = {
        "string_type": "null is not text" if value is None else "is not text",
        "int_type": f"{show(value)} is not a whole number of minutes east of UTC, such as 420 for UTC+07:00",
        "bool_type": f"{show(value)} is not accepted; true or false is",
        "dict_type": 'is not a JSON object; one such as {"work-anniversary": "2019-03-04"} is accepted',
    }
    return details.get(kind) or say(kind, message, context)
