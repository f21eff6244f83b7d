"""The profile of a user, and its validation, which the API and the import share."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from birthday.core.address import MAX_CHARACTERS, PLAIN, parse_address
from birthday.core.text import BIDI, CONTROL, INVISIBLE, reveal
from birthday.core.zone import check_offset, fixed_offset, fixed_zone_name, load_zone
from birthday.errors import FieldError, InvalidInputError

EARLIEST_BIRTH = date(1900, 1, 1)
_DATE_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)([Tt ]([01]\d|2[0-3]):[0-5]\d(:([0-5]\d|60)(\.\d+)?)?([Zz]|[+-]([01]\d|2[0-3]):?[0-5]\d)?)?",
    re.ASCII,
)
# At least one visible character. The pattern works in every dialect of regular expressions that reads JSON Schema.
# Characters that join or separate letters and emoji (ZWJ, ZWNJ) may stand beside it, because some scripts need them.
_ANY = rf"[^{CONTROL}{BIDI}]*"
_VISIBLE = rf"{_ANY}[^\s{CONTROL}{INVISIBLE}]{_ANY}"
_FORBIDDEN = re.compile(rf"[{CONTROL}{BIDI}]")


@dataclass(frozen=True, slots=True)
class Profile:
    """The data of a user that a client can set.

    ``last_name`` is empty for a user with one name. ``zone`` is an IANA name or a fixed offset such as ``UTC+07:00``.
    """

    first_name: str
    last_name: str
    email: str
    date_of_birth: date
    zone: str

    def as_input(self) -> dict[str, Any]:
        """Return the JSON members that would create this profile; the zone member that does not apply is None."""
        offset = fixed_offset(self.zone)
        return {
            "firstName": self.first_name,
            "lastName": self.last_name,
            "email": self.email,
            "dateOfBirth": self.date_of_birth.isoformat(),
            "timezone": self.zone if offset is None else None,
            "timezoneOffset": offset,
        }


def parse_date(value: object) -> date:
    """Return the date that is written in a date or date-time; the zone of a date-time is ignored."""
    if type(value) is date:
        return value
    match = _DATE_TIME.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"{_shown(value)} is not a date; YYYY-MM-DD is accepted, or a date-time that starts with one")
    try:
        return date.fromisoformat(match[1])
    except ValueError as error:
        raise ValueError(f"'{match[1]}' is not a date of the calendar: {error}; YYYY-MM-DD is accepted") from None


def _check_zone(name: str) -> str:
    try:
        load_zone(name)
    except InvalidInputError as error:
        raise ValueError(error.fields[0].detail) from None
    return name


def _check_offset(minutes: int) -> int:
    try:
        check_offset(minutes)
    except InvalidInputError as error:
        raise ValueError(error.fields[0].detail) from None
    return minutes


def _check_address(text: str) -> str:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(
            f"{_shown(text)} is not an e-mail address: {error}; one such as ada@example.com is accepted"
        ) from None


Name = Annotated[str, Field(min_length=1, max_length=100, pattern=f"^{_VISIBLE}$")]
NameOrNothing = Annotated[str, Field(max_length=100, pattern=f"^({_VISIBLE})?$")]
Email = Annotated[
    str, Field(max_length=MAX_CHARACTERS, json_schema_extra={"pattern": PLAIN}), AfterValidator(_check_address)
]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_check_zone)]
Offset = Annotated[int, Field(strict=True), AfterValidator(_check_offset)]


class ProfileInput(BaseModel):
    """A user as JSON: exactly one of ``timezone`` and ``timezoneOffset`` is given."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, hide_input_in_errors=True)

    first_name: Name = Field(
        alias="firstName", description="Given name, as it appears in the greeting.", examples=["Ada"]
    )
    last_name: NameOrNothing | None = Field(
        default=None,
        alias="lastName",
        description="Family name, as it appears in the greeting. Empty or absent for somebody with one name.",
        examples=["Lovelace"],
    )
    email: Email = Field(
        description=(
            "Where the greeting goes. Unique among users, without regard to case and to how it is written: it is kept "
            "in Unicode's form NFC, its domain as DNS has it, so that münchen.de is xn--mnchen-3ya.de. The pattern "
            "names the usual addresses; others of RFC 5321 and RFC 6531 are accepted too."
        ),
        examples=["ada@example.com"],
    )
    date_of_birth: Annotated[date, BeforeValidator(parse_date)] = Field(
        alias="dateOfBirth",
        description="A calendar date. A date-time is taken by the date written in it.",
        examples=["1990-01-01"],
    )
    timezone: Zone | None = Field(
        default=None, description="IANA name of the user's time zone.", examples=["America/New_York"]
    )
    timezone_offset: Offset | None = Field(
        default=None,
        alias="timezoneOffset",
        description="Instead of a zone: a fixed offset in minutes east of UTC.",
        examples=[420],
    )

    def zone(self) -> str:
        """Return the name of the zone, from the one member that is given."""
        return self.timezone or "" if self.timezone_offset is None else fixed_zone_name(self.timezone_offset)


_TEXTS: Final = {"firstName": "first_name", "lastName": "last_name", "email": "email"}


def parse_profile(data: object, now: datetime) -> Profile:
    """Return the profile that parsed JSON (or one row of an import) describes.

    Raises:
        InvalidInputError: with every field that is wrong.
    """
    if not isinstance(data, Mapping):
        raise InvalidInputError(FieldError("", "a JSON object is accepted"))
    errors = _zone_errors(data)
    try:
        given = ProfileInput.model_validate(data)
    except ValidationError as error:
        raise InvalidInputError(*_field_errors(error, data), *errors) from None
    if errors:
        raise InvalidInputError(*errors)
    zone = given.zone()
    today = now.astimezone(load_zone(zone)).date()
    if not EARLIEST_BIRTH <= given.date_of_birth <= today:
        detail = (
            f"{given.date_of_birth} is outside of what is accepted: from {EARLIEST_BIRTH} to today, "
            f"which is {today} in that time zone"
        )
        raise InvalidInputError(FieldError("/dateOfBirth", detail))
    return Profile(given.first_name, given.last_name or "", given.email, given.date_of_birth, zone)


def patch_profile(profile: Profile, changes: object, now: datetime) -> Profile:
    """Return ``profile`` with ``changes`` applied. Either zone member replaces the zone, also one of the other form.

    Names and an address that do not change are not validated, because they may be older than today's rules.

    Raises:
        InvalidInputError: with every field that is wrong.
    """
    if not isinstance(changes, Mapping):
        raise InvalidInputError(FieldError("", "a JSON object is accepted"))
    kept = {field: getattr(profile, field) for name, field in _TEXTS.items() if name not in changes}
    own = replace(profile, first_name="-", last_name="", email="somebody@example.com").as_input()
    if "timezone" in changes or "timezoneOffset" in changes:
        own["timezone"] = own["timezoneOffset"] = None
    return replace(parse_profile(own | dict(changes), now), **kept)


def _zone_errors(data: Mapping[Any, object]) -> list[FieldError]:
    if (data.get("timezone") is None) == (data.get("timezoneOffset") is None):
        return [FieldError("", "exactly one of timezone and timezoneOffset is accepted")]
    return []


def _field_errors(error: ValidationError, data: Mapping[Any, object]) -> list[FieldError]:
    fields = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0])
        detail = _detail(problem["type"], problem["msg"], problem.get("ctx", {}), data.get(name))
        fields.append(FieldError("/" + name.replace("~", "~0").replace("/", "~1"), detail))
    return fields


def _detail(kind: str, message: str, context: Mapping[str, Any], value: object) -> str:
    shown = _shown(value)
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch" and _FORBIDDEN.search(str(value)):
        accepted = "text without control characters and without characters that turn the direction of writing"
        return f"{shown} is not a name; {accepted} is accepted"
    if kind == "string_pattern_mismatch":
        return f"{shown} is not a name: nothing of it can be seen; text with a visible character is accepted"
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        accepted = ", ".join(field.alias or name for name, field in ProfileInput.model_fields.items())
        return f"is not a field of a user; accepted are {accepted}"
    if kind == "string_type":
        return f"{shown} is not text"
    if kind == "int_type":
        return f"{shown} is not a whole number of minutes east of UTC, such as 420 for UTC+07:00"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_too_long":
        return f"is too long: at most {context['max_length']} characters are accepted"
    return message


def _shown(value: object) -> str:
    """Return a value as text for an error: at most 100 characters, with the invisible ones revealed."""
    text = reveal(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 100 else f"{text[:97]}..."
