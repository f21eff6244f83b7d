"""The form of a user: a profile as texts of its fields, back to JSON members, and errors by field."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from birthday.core.document import parse_json
from birthday.core.plan import Upcoming
from birthday.core.user import Profile
from birthday.core.zone import load_zone
from birthday.errors import ConflictError, FieldError, InvalidInputError
from birthday.http.conditional import tag_of
from birthday.store.users import User

TEXTS: Final = ("firstName", "lastName", "email", "dateOfBirth", "timezone", "locale", "externalId")
FIELDS: Final = (*TEXTS, "anniversaries", "attributes")
LABELS: Final = {
    "firstName": "First name",
    "lastName": "Last name",
    "email": "E-mail",
    "dateOfBirth": "Date of birth",
    "timezone": "Time zone",
    "locale": "Language",
    "externalId": "External id",
    "anniversaries": "Other yearly dates",
    "attributes": "Attributes",
}
"""The names of the fields, for people."""
_EMPTY_IS_NOTHING: Final = frozenset({"timezone", "locale", "externalId"})
_DAY: Final = re.compile(r"[0-9]{2}-[0-9]{2}")


def texts_of(profile: Profile | None) -> dict[str, str]:
    """Return what the fields of the form have for a profile; for None, what they have at first."""
    if profile is None:
        return dict.fromkeys(FIELDS, "")
    members, extras = profile.as_input(), profile.extras
    texts = {name: str(members.get(name) or "") for name in TEXTS}
    texts["timezone"] = profile.zone
    texts["anniversaries"] = "\n".join(f"{name} {day}" for name, day in sorted(extras.anniversaries.items()))
    pretty = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    texts["attributes"] = orjson.dumps(extras.attributes, option=pretty).decode() if extras.attributes else ""
    return texts


def read_texts(form: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a form that was sent; browsers write ends of lines as CR LF."""
    return {name: form.get(name, "").replace("\r\n", "\n").strip() for name in FIELDS}


def members_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON members of a user that a form means; they are not validated yet.

    Raises:
        InvalidInputError: if a field cannot be read.
    """
    members: dict[str, Any] = {name: texts[name] for name in TEXTS}
    for name in _EMPTY_IS_NOTHING:
        members[name] = members[name] or None
    if _DAY.fullmatch(texts["dateOfBirth"]):
        members["dateOfBirth"] = f"--{texts['dateOfBirth']}"
    errors = [] if texts["timezone"] else [FieldError("/timezone", "is required, such as Europe/Berlin")]
    members["anniversaries"] = anniversaries = {}
    for line in filter(None, map(str.strip, texts["anniversaries"].splitlines())):
        name, _, day = line.rpartition(" ")
        if not name:
            detail = f"'{line}' lacks a name or a date; work-anniversary 2019-03-04 is accepted"
            errors.append(FieldError("/anniversaries", detail))
        anniversaries[name.strip()] = day
    try:
        members["attributes"] = parse_json(texts["attributes"].encode()) if texts["attributes"] else {}
    except ValueError as error:
        errors.append(FieldError("/attributes", f'is not JSON: {error}; an object such as {{"team": "blue"}} is'))
    if errors:
        raise InvalidInputError(*errors)
    return members


def members_changed(profile: Profile, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the members that a form changes, as PATCH takes them: what stays may be older than today's rules.

    Raises:
        InvalidInputError: if a field cannot be read.
    """
    shown, members = texts_of(profile), members_of(texts)
    changes = {name: members[name] for name in FIELDS if texts[name] != shown[name]}
    for name, stored in (("attributes", profile.extras.attributes), ("anniversaries", profile.extras.anniversaries)):
        if isinstance(given := changes.get(name), dict):
            changes[name] = dict.fromkeys(stored) | given
    return changes


def tag_of_profile(profile: Profile) -> str:
    """Return what tells whether a profile has changed since a form was made of it."""
    return tag_of(orjson.dumps(texts_of(profile))).strip('"')


def errors_by_field(error: InvalidInputError | ConflictError) -> dict[str, str]:
    """Return what is wrong with each field of the form."""
    if isinstance(error, ConflictError):
        return {error.pointer.lstrip("/"): str(error)}
    found: dict[str, list[str]] = {}
    for one in error.fields:
        name, _, inner = one.pointer.lstrip("/").partition("/")
        found.setdefault(name, []).append(f"{inner}: {one.detail}" if inner else one.detail)
    return {name: "; ".join(details) for name, details in found.items()}


def full_name(profile: Profile) -> str:
    """Return a name, for those who may see it."""
    return f"{profile.first_name} {profile.last_name}".strip()


def next_greetings(user: User, now: datetime) -> list[tuple[str, str]]:
    """Return what is sent next to a user, and when, each with a name."""
    return [(f"Next {one.message_type}", _when(one, user.profile, now)) for one in user.upcoming]


def _when(one: Upcoming, profile: Profile, now: datetime) -> str:
    if one.due_at is None:
        reason = "the person has opted out" if profile.extras.suppressed else "there is no text for it"
        return f"{one.on}: nothing is sent, {reason}"
    if one.due_at <= now:
        return f"at once, because it is {one.on} in {profile.zone}"
    return f"{one.due_at.astimezone(load_zone(profile.zone)):%Y-%m-%d %H:%M} in {profile.zone}"
