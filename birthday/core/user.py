"""The profile of a user, and its validation, which the API and the import share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from birthday.core.dates import UNKNOWN_YEAR, birthday_text
from birthday.core.fields import (
    MAX_ANNIVERSARIES,
    MAX_ATTRIBUTES_BYTES,
    Anniversaries,
    Attributes,
    Birthday,
    Email,
    ExternalId,
    Locale,
    Name,
    NameOrNothing,
    Offset,
    Zone,
    is_type,
)
from birthday.core.message import BIRTHDAY
from birthday.core.problems import field_errors
from birthday.core.zone import fixed_offset, fixed_zone_name, load_zone
from birthday.errors import FieldError, InvalidInputError

EARLIEST_DATE = date(1900, 1, 1)
EXAMPLE: Final[dict[str, Any]] = {
    "firstName": "Ada",
    "lastName": "Lovelace",
    "email": "ada@example.com",
    "dateOfBirth": "1990-12-10",
    "timezone": "Europe/London",
    "externalId": "crm-4711",
    "locale": "en-GB",
    "attributes": {"team": "engines"},
    "anniversaries": {"work-anniversary": "2019-03-04"},
}
READ_ONLY: Final = ("id", "nextMessageAt", "occasions", "createdAt", "updatedAt")
"""The members of a user that no client sets."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What few users have. ``anniversaries`` are yearly dates besides the birthday, by type."""

    external_id: str | None = None
    locale: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    anniversaries: Mapping[str, date] = field(default_factory=dict)
    suppressed: bool = False


NO_EXTRAS: Final = Extras()


@dataclass(frozen=True, slots=True)
class Profile:
    """The data of a user that a client can set.

    ``last_name`` is empty for a user with one name. ``date_of_birth`` is in UNKNOWN_YEAR if only the birthday is known.
    ``zone`` is an IANA name or a fixed offset such as ``UTC+07:00``.
    """

    first_name: str
    last_name: str
    email: str
    date_of_birth: date
    zone: str
    extras: Extras = field(default=NO_EXTRAS, hash=False)

    def dates(self) -> Iterator[tuple[str, date]]:
        """Yield type and date of the birthday, then of the other yearly dates."""
        yield BIRTHDAY, self.date_of_birth
        yield from self.extras.anniversaries.items()

    def as_input(self) -> dict[str, Any]:
        """Return the JSON members that would create this profile.

        The zone member that does not apply is None. Of ``extras`` there are only those that the user has.
        """
        offset = fixed_offset(self.zone)
        members: dict[str, Any] = {
            "firstName": self.first_name,
            "lastName": self.last_name,
            "email": self.email,
            "dateOfBirth": birthday_text(self.date_of_birth),
            "timezone": self.zone if offset is None else None,
            "timezoneOffset": offset,
        }
        if self.extras is not NO_EXTRAS:
            members |= {name: value for name, value in extras_json(self.extras).items() if value}
        return members


def extras_json(extras: Extras) -> dict[str, Any]:
    """Return the JSON members for ``extras``. Do not change them: nearly all users share one object."""
    return _NO_EXTRAS_JSON if extras is NO_EXTRAS else _extras_json(extras)


def _extras_json(extras: Extras) -> dict[str, Any]:
    return {
        "externalId": extras.external_id,
        "locale": extras.locale,
        "attributes": extras.attributes,
        "anniversaries": {name: day.isoformat() for name, day in extras.anniversaries.items()},
        "suppressed": extras.suppressed,
    }


_NO_EXTRAS_JSON: Final = _extras_json(NO_EXTRAS)


def with_suppressed(profile: Profile, *, suppressed: bool) -> Profile:
    """Return a profile of which only this differs."""
    return replace(profile, extras=replace(profile.extras, suppressed=suppressed))


class ProfileInput(BaseModel):
    """A user, for whom exactly one of `timezone` and `timezoneOffset` is given; the other one is absent or null."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        str_strip_whitespace=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [EXAMPLE]},
    )

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
            "in Unicode's form NFC, its domain as DNS has it, so that münchen.de is xn--mnchen-3ya.de."
        ),
        examples=["ada@example.com"],
    )
    date_of_birth: Birthday = Field(
        alias="dateOfBirth",
        description=(
            f"A calendar date from {EARLIEST_DATE} to today in the user's zone. A date-time is taken by the date "
            "written in it. If the year is not known, --MM-DD."
        ),
        examples=["1990-01-01", "--02-29"],
    )
    timezone: Zone | None = Field(
        default=None,
        description="The user's time zone: an IANA name, or a fixed offset such as UTC+07:00. Not with timezoneOffset.",
        examples=["America/New_York", "UTC", "UTC+07:00"],
    )
    timezone_offset: Offset | None = Field(
        default=None,
        alias="timezoneOffset",
        description="Instead of timezone: a fixed offset that some zone uses, in minutes east of UTC.",
        examples=[420, -300, 0],
    )
    external_id: ExternalId | None = Field(
        default=None,
        alias="externalId",
        description="Your own id of the user: visible characters, with blanks between them. Unique among users.",
        examples=["crm-4711"],
    )
    locale: Locale | None = Field(
        default=None,
        description="The user's language, as a BCP 47 tag. It is kept in the usual case, such as pt-BR.",
        examples=["pt-BR"],
    )
    attributes: Attributes | None = Field(
        default=None,
        description=(
            f"A JSON object of your own for templates: at most {MAX_ATTRIBUTES_BYTES} bytes, without U+0000. PATCH "
            "changes the members that are given, and null takes one away."
        ),
        examples=[{"team": "blue"}],
    )
    anniversaries: Anniversaries | None = Field(
        default=None,
        description=(
            f"At most {MAX_ANNIVERSARIES} other yearly dates, by type: calendar dates from {EARLIEST_DATE} to today. "
            "The first occasion is one year after the date. PATCH changes the dates that are given, and null takes one "
            "back."
        ),
        examples=[{"work-anniversary": "2019-03-04"}],
    )
    suppressed: bool | None = Field(
        default=None,
        strict=True,
        description=(
            "Whether nothing is ever sent to the user. true puts the address on the list of those who have opted out. "
            "While it is there, false has no effect."
        ),
        examples=[False],
    )

    def zone(self) -> str:
        """Return the name of the zone, from the one member that is given."""
        return self.timezone or "" if self.timezone_offset is None else fixed_zone_name(self.timezone_offset)

    def extras(self) -> Extras:
        """Return what is given besides the members that every user has."""
        if self.model_fields_set.isdisjoint(Extras.__slots__):
            return NO_EXTRAS
        return Extras(
            self.external_id, self.locale, self.attributes or {}, self.anniversaries or {}, self.suppressed or False
        )


_MAX_MEMBERS: Final = 100
"""A user has fewer. An error for each of the 100,000 that fit in a line of an import would take a second."""
FIELDS: Final = tuple(field.alias or name for name, field in ProfileInput.model_fields.items())
_TEXTS: Final = {"firstName": "first_name", "lastName": "last_name", "email": "email"}
_EXTRAS: Final = {
    "externalId": "external_id",
    "locale": "locale",
    "attributes": "attributes",
    "anniversaries": "anniversaries",
}


def parse_profile(data: object, now: datetime) -> Profile:
    """Return the profile that parsed JSON (or one row of an import) describes.

    Raises:
        InvalidInputError: with every field that is wrong.
    """
    members = _members(data)
    errors = _zone_errors(members)
    try:
        given = ProfileInput.model_validate(members)
    except ValidationError as error:
        raise InvalidInputError(*field_errors(error, members, FIELDS), *errors) from None
    if errors:
        raise InvalidInputError(*errors)
    zone = given.zone()
    today = now.astimezone(load_zone(zone)).date()
    dates = {"/dateOfBirth": given.date_of_birth} if given.date_of_birth.year != UNKNOWN_YEAR else {}
    if given.anniversaries:
        dates |= {f"/anniversaries/{name}": day for name, day in given.anniversaries.items()}
    for pointer, day in dates.items():
        if not EARLIEST_DATE <= day <= today:
            detail = f"from {EARLIEST_DATE} to today, which is {today} in that time zone"
            errors.append(FieldError(pointer, f"is outside of what is accepted: {detail}"))
    if errors:
        raise InvalidInputError(*errors)
    return Profile(given.first_name, given.last_name or "", given.email, given.date_of_birth, zone, given.extras())


def parse_replacement(profile: Profile | None, data: object, now: datetime) -> Profile:
    """Return the profile that replaces ``profile``, or is new. ``data`` may be the user as the API shows it, changed.

    Whoever is suppressed stays so: a copy from before somebody opted out must not revive them.

    Raises:
        InvalidInputError: with every field that is wrong.
    """
    parsed = parse_profile({name: value for name, value in _members(data).items() if name not in READ_ONLY}, now)
    return with_suppressed(parsed, suppressed=True) if profile and profile.extras.suppressed else parsed


def patch_profile(profile: Profile, changes: object, now: datetime) -> Profile:
    """Return ``profile`` with ``changes`` applied. Either zone member replaces the zone, also one of the other form.

    What does not change is not validated, because it may be older than today's rules. Whoever is suppressed stays so.

    Raises:
        InvalidInputError: with every field that is wrong.
    """
    given = dict(_members(changes))
    kept = {own: getattr(profile, own) for name, own in _TEXTS.items() if name not in given}
    kept_extras = {own: getattr(profile.extras, own) for name, own in _EXTRAS.items() if name not in given}
    own = replace(profile, first_name="-", last_name="", email="somebody@example.com", extras=NO_EXTRAS).as_input()
    if "timezone" in given or "timezoneOffset" in given:
        own["timezone"] = own["timezoneOffset"] = None
    stored = extras_json(profile.extras)
    for name in ("attributes", "anniversaries"):
        if isinstance(changed := given.get(name), Mapping):
            gone = {key for key, value in changed.items() if value is None and (name == "attributes" or is_type(key))}
            given[name] = {key: value for key, value in (stored[name] | changed).items() if key not in gone}
    parsed = parse_profile(own | given, now)
    suppressed = profile.extras.suppressed or parsed.extras.suppressed
    return replace(parsed, **kept, extras=replace(parsed.extras, **kept_extras, suppressed=suppressed))


def merge_profile(profile: Profile, given: Profile) -> Profile:
    """Return ``profile`` with all that ``given`` has. What it lacks stays, as does each yearly date that it lacks."""
    own, new = profile.extras, given.extras
    if new is NO_EXTRAS:
        return replace(given, extras=own)
    extras = Extras(
        new.external_id or own.external_id,
        new.locale or own.locale,
        new.attributes or own.attributes,
        {**own.anniversaries, **new.anniversaries},
        own.suppressed or new.suppressed,
    )
    return replace(given, extras=extras)


def _members(data: object) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise InvalidInputError(FieldError("", "a JSON object is accepted"))
    if len(data) > _MAX_MEMBERS:
        raise InvalidInputError(FieldError("", f"has {len(data):,} members; at most {_MAX_MEMBERS} are accepted"))
    return data


def _zone_errors(data: Mapping[Any, object]) -> list[FieldError]:
    if (data.get("timezone") is None) == (data.get("timezoneOffset") is None):
        return [FieldError("", "exactly one of timezone and timezoneOffset is accepted")]
    return []
