"""What parameters of queries and members of bodies accept, as types for pydantic, and the bases of all models."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AliasGenerator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic.alias_generators import to_camel

from birthday.core.fields import TYPE_PATTERN
from birthday.core.occasion import LAST_YEAR
from birthday.http.ids import UUID_PATTERN

MAX_LIMIT: Final = 500
DEFAULT_LIMIT: Final = 50

_DAY = timedelta(days=1)
_LIMIT = re.compile(r"[1-9][0-9]{0,2}")
_YEAR = re.compile(r"[0-9]{1,4}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# The '+' of an offset that is not percent-encoded arrives as a space.
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d+)?)(?:([Zz])|([+ -])(\d\d:\d\d))", re.ASCII)


class Input(BaseModel):
    """Base of what clients send. Members that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, alias_generator=to_camel)


class Output(BaseModel):
    """Base of what the API answers, built from the attributes of our own objects; each member is always there."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        from_attributes=True,
        alias_generator=AliasGenerator(serialization_alias=to_camel),
    )


def example(body: dict[str, Any]) -> ConfigDict:
    """Return the part of a model's configuration that shows an example of a body."""
    return ConfigDict(json_schema_extra={"examples": [body]})


def one_of(choices: type[StrEnum]) -> BeforeValidator:
    """Return what accepts the values of ``choices`` only."""

    def check(value: object) -> object:
        if not isinstance(value, str) or value not in set(choices):
            raise ValueError(f"one of {', '.join(choices)} is accepted")
        return value

    return BeforeValidator(check)


def _check_limit(text: object) -> int:
    if not isinstance(text, str) or not _LIMIT.fullmatch(text) or int(text) > MAX_LIMIT:
        raise ValueError(f"a whole number from 1 to {MAX_LIMIT} is accepted")
    return int(text)


def _check_year(text: object) -> int:
    if not isinstance(text, str) or not _YEAR.fullmatch(text) or not 1 <= int(text) <= LAST_YEAR:
        raise ValueError(f"a year from 1 to {LAST_YEAR} is accepted")
    return int(text)


def _check_type(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(TYPE_PATTERN, value):
        raise ValueError("the name of a type is accepted, such as birthday or work-anniversary")
    return value


def _check_id(value: object) -> UUID:
    if not isinstance(value, str) or not UUID_PATTERN.fullmatch(value):
        raise ValueError("an id is accepted, a UUID")
    return UUID(value)


def _check_flag(text: object) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("true or false is accepted")
    return text == "true"


def read_instant(end_of_day: timedelta, text: object) -> datetime:
    """Return an instant, or that of a date, of which ``end_of_day`` later is meant.

    Raises:
        ValueError: if it is neither.
    """
    try:
        if isinstance(text, str) and _DATE.fullmatch(text):
            return _utc(datetime.fromisoformat(f"{text}T00:00:00Z"), end_of_day)
        if isinstance(text, str) and (match := _INSTANT.fullmatch(text)):
            day, time, zulu, sign, offset = match.groups()
            zone = "Z" if zulu else f"{sign.replace(' ', '+')}{offset}"
            return _utc(datetime.fromisoformat(f"{day}T{time}{zone}"), timedelta())
    except ValueError:
        # 30 February, or 25 o'clock.
        pass
    raise ValueError(
        "a date such as 2026-03-01 (all of it, UTC) or an RFC 3339 date-time such as 2026-03-01T09:00:00Z is accepted"
    )


def _utc(instant: datetime, later: timedelta) -> datetime:
    """Return ``instant + later`` in UTC. Beyond the range of ``datetime``, return its first or last instant."""
    try:
        return instant.astimezone(UTC) + later
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if instant.year == 1 else datetime.max.replace(tzinfo=UTC)


_DAY_OR_INSTANT = WithJsonSchema(
    {
        "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}],
        "examples": ["2026-03-01", "2026-03-01T09:00:00Z"],
    }
)

# The types of what need not be given include None, for the default. A client cannot send null: their schemas say so.
Limit = Annotated[
    int, Field(ge=1, le=MAX_LIMIT, description="How many a page has at most."), BeforeValidator(_check_limit)
]
Year = Annotated[
    int | None,
    BeforeValidator(_check_year),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": LAST_YEAR}),
]
Type = Annotated[
    str | None,
    BeforeValidator(_check_type),
    WithJsonSchema({"type": "string", "pattern": TYPE_PATTERN, "examples": ["birthday"]}),
]
Flag = Annotated[bool | None, BeforeValidator(_check_flag), WithJsonSchema({"type": "boolean"})]
Id = Annotated[UUID | None, BeforeValidator(_check_id), WithJsonSchema({"type": "string", "format": "uuid"})]
From = Annotated[datetime | None, PlainValidator(partial(read_instant, timedelta())), _DAY_OR_INSTANT]
"""An instant; a date stands for its first."""
To = Annotated[datetime | None, PlainValidator(partial(read_instant, _DAY)), _DAY_OR_INSTANT]
"""The instant before which; a date stands for its end."""

Instant = Annotated[datetime, Field(examples=["2026-03-01T09:00:00Z"])]
NextCursor = Annotated[str | None, Field(description="The `cursor` of the next page; null on the last one.")]
