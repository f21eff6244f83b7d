"""The fields of an export besides the profile: with them, an import restores the same user.

The id of a message, which is its idempotency key, follows from the user's id and from ``schedule_from``. So if both are
restored, the messages that the database has lost are planned again under the keys that the receiver knows.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from birthday.core.fields import TypeName
from birthday.core.message import BIRTHDAY
from birthday.errors import FieldError, InvalidInputError

ORIGIN_FIELDS: Final = ("id", "createdAt", "scheduleFrom", "greetedYear", "anniversaryHistory")


class History(BaseModel):
    """What an export knows of a yearly date besides the date: the same as of the birthday."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    schedule_from: AwareDatetime = Field(alias="scheduleFrom")
    greeted_year: Annotated[int, Field(ge=0, le=9999)] = Field(default=0, alias="greetedYear")


class Origin(BaseModel):
    """The identity of an exported user. ``greeted_year`` is the latest year whose greeting has arrived, or 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: UUID
    created_at: AwareDatetime = Field(alias="createdAt")
    schedule_from: AwareDatetime = Field(alias="scheduleFrom")
    greeted_year: Annotated[int, Field(ge=0, le=9999)] = Field(default=0, alias="greetedYear")
    anniversary_history: dict[TypeName, History] = Field(default_factory=dict, alias="anniversaryHistory")

    def history_of(self, message_type: str) -> "History | Origin":
        """Return since when the date of a type is what it is, and which year was greeted last."""
        if message_type == BIRTHDAY:
            return self
        return self.anniversary_history.get(message_type) or History(scheduleFrom=self.schedule_from)


def parse_origin(data: Mapping[str, object], now: datetime) -> Origin:
    """Return the values of the members ``ORIGIN_FIELDS``. Older exports lack the last three.

    Raises:
        InvalidInputError: with every field that is wrong.
    """
    given = {name: value for name, value in data.items() if value is not None}
    if "createdAt" in given:
        given.setdefault("scheduleFrom", given["createdAt"])
    try:
        origin = Origin.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise InvalidInputError(
            *(FieldError(f"/{problem['loc'][0]}", _detail(given, problem["loc"][0])) for problem in problems)
        ) from None
    instants = {"createdAt": origin.created_at, "scheduleFrom": origin.schedule_from}
    instants |= {f"anniversaryHistory/{name}": each.schedule_from for name, each in origin.anniversary_history.items()}
    for name, instant in instants.items():
        if instant > now:
            raise InvalidInputError(FieldError(f"/{name}", f"{instant.astimezone(UTC)} is in the future"))
    return origin


def _detail(given: Mapping[str, object], name: object) -> str:
    if name not in given:
        return "is required with --with-ids, as an export has it"
    return f"'{given[str(name)]!s:.100}' is not accepted; a value as an export writes it is"
