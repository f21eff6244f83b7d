"""The body of ``POST /messages/retry``: which failed messages to retry, and how many at most."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from birthday.config import parse_duration
from birthday.core.message import ErrorType
from birthday.errors import FieldError, InvalidInputError
from birthday.http.api.requests import UUID_PATTERN, parse_message_type
from birthday.store.failed import FailedFilter

RETRY_LIMIT: Final = 10_000
AGE_PATTERN: Final = "^([0-9]{1,8}(ms|s)?|[0-9]{1,6}m|[0-9]{1,4}h|[0-9]{1,3}d)$"
"""The durations that ``parse_duration`` accepts, without fractions and without values beyond its limit."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A request to retry up to ``limit`` of the messages that ``wanted`` selects."""

    wanted: FailedFilter
    limit: int


def parse_retry(data: object, now: datetime) -> Retry:
    """Return the request that parsed JSON stands for.

    Raises:
        InvalidInputError: with every invalid member.
    """
    if not isinstance(data, dict):
        raise InvalidInputError(FieldError("", "a JSON object is accepted"))
    errors: list[FieldError] = []
    members: dict[str, Any] = {}
    for name, value in data.items():
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        if name not in _READ:
            errors.append(FieldError(pointer, f"is not accepted here; accepted are {', '.join(_READ)}"))
            continue
        try:
            members[name] = _READ[name](value)
        except ValueError as error:
            errors.append(FieldError(pointer, str(error)))
    if errors:
        raise InvalidInputError(*errors)
    older_than, newer_than = members.get("olderThan"), members.get("newerThan")
    wanted = FailedFilter(
        error_type=members.get("errorType"),
        user_id=members.get("userId"),
        failed_from=None if newer_than is None else now - newer_than,
        failed_before=None if older_than is None else now - older_than,
        message_type=members.get("type"),
    )
    return Retry(wanted, members.get("limit", RETRY_LIMIT))


def _read_error_type(value: object) -> ErrorType:
    if not isinstance(value, str) or value not in set(ErrorType):
        raise ValueError(f"one of {', '.join(ErrorType)} is accepted")
    return ErrorType(value)


def _read_user_id(value: object) -> UUID:
    if not isinstance(value, str) or not UUID_PATTERN.fullmatch(value):
        raise ValueError("the id of a user is accepted, a UUID")
    return UUID(value)


def _read_age(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(AGE_PATTERN, value):
        raise ValueError("a duration in text is accepted: seconds as a plain number, or 500ms, 30s, 10m, 48h, 7d")
    return parse_duration(value)


def _read_limit(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in range(1, RETRY_LIMIT + 1):
        raise ValueError(f"a whole number from 1 to {RETRY_LIMIT} is accepted")
    return int(value)


_READ: Final[dict[str, Callable[[object], object]]] = {
    "errorType": _read_error_type,
    "type": parse_message_type,
    "userId": _read_user_id,
    "olderThan": _read_age,
    "newerThan": _read_age,
    "limit": _read_limit,
}
