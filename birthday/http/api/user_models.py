"""What the API takes and answers about users. What a profile accepts is defined in ``core.user``."""

from datetime import date
from typing import Annotated, Any
from uuid import UUID

from pydantic import AliasPath, ConfigDict, Field, PlainValidator, WithJsonSchema

from birthday.core.dates import birthday_text, parse_month_day
from birthday.core.fields import DAY_PATTERN, TYPE_PATTERN, Email, ExternalId, NamePrefix, Zone
from birthday.core.message import Status
from birthday.core.user import EXAMPLE, READ_ONLY, ProfileInput, extras_json
from birthday.core.zone import fixed_offset
from birthday.http.api.parameters import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Flag,
    From,
    Input,
    Instant,
    Limit,
    NextCursor,
    Output,
    Type,
    Year,
)
from birthday.http.cursors import UserCursor
from birthday.operations.explain import NO_MESSAGE
from birthday.store import users as store
from birthday.store.listing import UserFilter

_TypeName = Annotated[str, Field(pattern=TYPE_PATTERN, examples=["birthday"])]


class Occasion(Output):
    """The next occasion of one of a user's dates."""

    type: _TypeName = Field(validation_alias="message_type")
    date: Annotated[date, Field(description="The user's local date of it.", examples=["2026-12-10"])]
    next_message_at: Instant | None = Field(
        description="When its message is due; null if there will be none, because the user is suppressed or the type "
        "has no published template."
    )


class User(Output):
    """A user as the API answers. ``user_json`` makes it without a model, because that takes a tenth of the time."""

    id: UUID
    first_name: str = Field(examples=["Ada"])
    last_name: str = Field(examples=["Lovelace"])
    email: str = Field(examples=["ada@example.com"])
    date_of_birth: str = Field(
        pattern=r"^([0-9]{4}|-)-[0-9]{2}-[0-9]{2}$",
        description="YYYY-MM-DD, or --MM-DD if the year is not known.",
        examples=["1990-12-10"],
    )
    timezone: str | None = Field(
        description="IANA name; null if there is a timezoneOffset.", examples=["Europe/London"]
    )
    timezone_offset: int | None = Field(description="Minutes east of UTC; null if there is a timezone.")
    external_id: str | None = Field(description="The user's id at the customer.", examples=["crm-4711"])
    locale: str | None = Field(description="A BCP 47 language tag.", examples=["en-GB"])
    attributes: dict[str, Any] = Field(description="What templates know of the user besides.")
    anniversaries: dict[str, date] = Field(
        description="Yearly dates besides the birthday, by type.", examples=[{"work-anniversary": "2019-03-04"}]
    )
    suppressed: bool = Field(description="Whether nothing is ever sent to the user.")
    next_message_at: Instant | None = Field(
        description="When the next message of any type is due; null if there will be none."
    )
    occasions: list[Occasion] = Field(
        description="The next occasion of each date for which there is or will be a message, in order of date."
    )
    created_at: Instant = Field(description="When the user was created.")
    updated_at: Instant = Field(description="When the user was last changed.")


class UserPage(Output):
    """A page of users, in order of creation."""

    users: list[User] = Field(max_length=MAX_LIMIT)
    next_cursor: NextCursor


_Day = Annotated[
    int | None, PlainValidator(parse_month_day), WithJsonSchema({"type": "string", "pattern": f"^(--)?{DAY_PATTERN}$"})
]


class UserQuery(Input):
    """Which users a list has: those that all given parameters mean."""

    limit: Limit = DEFAULT_LIMIT
    cursor: UserCursor = None
    email: Email | None = Field(default=None, description="The e-mail address, without regard to case.")
    external_id: ExternalId | None = Field(default=None, description="The user's id at the customer.")
    name: NamePrefix | None = Field(
        default=None,
        description="What the first, last or full name begins with, without regard to case. The list is in order of "
        "names.",
    )
    timezone: Zone | None = Field(
        default=None,
        description="The zone: an IANA name, or a fixed offset such as UTC+07:00. The list is in order of birthdays.",
    )
    birthday: _Day = Field(
        default=None, description="The day of birth, as MM-DD or --MM-DD. The list is in order of zones."
    )
    suppressed: Flag = Field(
        default=None,
        description="Whether nothing is ever sent to the user. Of those to whom nothing is, the list is in order of "
        "creation.",
    )
    updated_after: From = Field(
        default=None,
        description="Only users who were changed after this instant, the one changed first first. A change may be "
        "stored a little later than the instant that it has: ask from a minute before the newest that you know, and "
        "expect some again. Deleted users are not in any list.",
    )

    def wanted(self) -> UserFilter | None:
        """Return the filter; None if all users are wanted."""
        wanted = UserFilter(
            self.email, self.external_id, self.name, self.timezone, self.birthday, self.suppressed, self.updated_after
        )
        return None if wanted == UserFilter() else wanted


class ExplainQuery(Input):
    """Which occasions are explained."""

    year: Year = Field(default=None, description="By default the current year where the user is.")
    type: Type = Field(default=None, description="Only the occasion of this type; without it, of all.")


class ExplanationStep(Output):
    """One fact on the way to the outcome."""

    about: str = Field(description="What it is about.", examples=["due"])
    says: str


class Explanation(Output):
    """What came of one occasion."""

    type: _TypeName = Field(validation_alias="message_type")
    year: int
    outcome: str = Field(description=f"One of {', '.join([*Status, *NO_MESSAGE])}.")
    reason: str
    steps: list[ExplanationStep] = Field(description="What led to the outcome, in order.")


class Explained(Output):
    """What came of a user's occasions."""

    user_id: UUID = Field(validation_alias=AliasPath("user", "id"))
    occasions: list[Explanation] = Field(validation_alias="explanations")


def _with_read_only(schema: dict[str, Any]) -> None:
    ignored = {"readOnly": True, "description": "Ignored: a user may be sent as it was read."}
    schema["properties"] |= dict.fromkeys(READ_ONLY, ignored)
    schema["examples"] = [EXAMPLE]


class ProfileReplacement(ProfileInput):
    """A user as it is to be: it may be the user as it was read, with changes."""

    model_config = ConfigDict(json_schema_extra=_with_read_only)


def _all_optional(schema: dict[str, Any]) -> None:
    del schema["required"]
    schema["properties"]["anniversaries"]["additionalProperties"]["type"] = ["string", "null"]
    schema["examples"] = [{"timezone": "America/New_York", "anniversaries": {"work-anniversary": None}}]


class ProfileChanges(ProfileInput):
    """What is to change of a user: members that are not given stay as they are."""

    model_config = ConfigDict(json_schema_extra=_all_optional)


def user_json(user: store.User) -> dict[str, Any]:
    """Return the JSON members of a user, in the order of ``User``."""
    profile = user.profile
    offset = fixed_offset(profile.zone)
    return {
        "id": user.id,
        "firstName": profile.first_name,
        "lastName": profile.last_name,
        "email": profile.email,
        "dateOfBirth": birthday_text(profile.date_of_birth),
        "timezone": profile.zone if offset is None else None,
        "timezoneOffset": offset,
        **extras_json(profile.extras),
        "nextMessageAt": user.next_message_at,
        "occasions": [{"type": one.message_type, "date": one.on, "nextMessageAt": one.due_at} for one in user.upcoming],
        "createdAt": user.created_at,
        "updatedAt": user.updated_at,
    }
