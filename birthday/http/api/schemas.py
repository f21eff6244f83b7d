"""JSON Schemas of requests and responses. Those of profiles are generated from the model that validates them."""

from typing import Any

from birthday.core.fields import MAX_ANNIVERSARIES, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH, TYPE_PATTERN
from birthday.core.message import BIRTHDAY, ErrorType, Status
from birthday.core.user import EARLIEST_DATE, READ_ONLY, ProfileInput
from birthday.core.zone import OFFSETS_IN_USE, zone_names
from birthday.http.api.requests import MAX_LIMIT
from birthday.http.api.retries import AGE_PATTERN, RETRY_LIMIT
from birthday.http.api.suppressions import DEFAULT_REASON
from birthday.http.api.template_models import schemas as template_schemas
from birthday.operations.explain import NO_MESSAGE
from birthday.operations.suppressions import MAX_REASON, REASON_PATTERN

Schema = dict[str, Any]


def schemas(last_year: int) -> dict[str, Schema]:
    """Return every schema by name. ``last_year`` is the last complete calendar year."""
    return {
        "Profile": _profile(last_year),
        "ProfileReplacement": _profile_replacement(last_year),
        "ProfileChanges": _profile_changes(last_year),
        "Timezone": {"type": "string", "enum": sorted(zone_names())},
        "TimezoneOffset": {"type": "integer", "enum": sorted(OFFSETS_IN_USE)},
        "Attributes": _ATTRIBUTES,
        "Attribute": _ATTRIBUTE,
        "User": _closed(_USER),
        "Occasion": _closed(_OCCASION),
        "Explained": _closed({"userId": _ID, "occasions": _list_of("Explanation")}),
        "Explanation": _closed(_EXPLANATION),
        "ExplanationStep": _closed(_EXPLANATION_STEP),
        "UserPage": _closed({"users": _list_of("User"), "nextCursor": _NEXT_CURSOR}),
        "Message": _closed(_MESSAGE),
        "MessagePage": _closed({"messages": _list_of("Message"), "nextCursor": _NEXT_CURSOR}),
        "SuppressionReason": {
            "type": "object",
            "properties": {"reason": _REASON | {"default": DEFAULT_REASON}},
            "additionalProperties": False,
        },
        "Suppression": _closed(_SUPPRESSION),
        "SuppressionPage": _closed({"suppressions": _list_of("Suppression"), "nextCursor": _NEXT_CURSOR}),
        **template_schemas(),
        "ActiveTemplate": _closed(_ACTIVE_TEMPLATE),
        "TemplateList": _closed({"templates": {"type": "array", "items": ref("ActiveTemplate")}}),
        "TemplateVersion": _closed(_TEMPLATE_VERSION),
        "TemplateVersions": _closed({"versions": _list_of("TemplateVersion")}),
        "TemplatePreview": _closed(_TEMPLATE_PREVIEW),
        "TemplateTest": _closed({"delivered": {"type": "boolean"}, "reason": {"type": ["string", "null"]}}),
        "Retry": {"type": "object", "properties": _RETRY, "additionalProperties": False},
        "Retried": _closed({"requeued": _COUNT, "remaining": _COUNT}),
        "Problem": _PROBLEM,
        "Health": _closed(_HEALTH | {"checks": {"type": "object", "additionalProperties": _CHECK_STATUS}}),
        "DetailedHealth": _closed(_HEALTH | {"checks": {"type": "object", "additionalProperties": ref("Dependency")}}),
        "Dependency": _closed(_DEPENDENCY),
        "Ready": _closed(_READY),
        "Alive": _closed({"status": {"const": "alive"}}),
    }


def ref(name: str) -> Schema:
    """Return a reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _closed(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list_of(name: str) -> Schema:
    return {"type": "array", "items": ref(name), "maxItems": MAX_LIMIT}


def _instant(description: str) -> Schema:
    return {"type": "string", "format": "date-time", "description": description, "examples": ["2026-03-01T09:00:00Z"]}


def _or_null(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


_ID = {"type": "string", "format": "uuid"}
_NEXT_CURSOR = {"type": ["string", "null"], "description": "The `cursor` of the next page; null on the last one."}
_CHECK_STATUS = {"type": "string", "enum": ["healthy", "unhealthy"]}

_USER: dict[str, Schema] = {
    "id": _ID,
    "firstName": {"type": "string"},
    "lastName": {"type": "string"},
    "email": {"type": "string"},
    "dateOfBirth": {
        "type": "string",
        "pattern": r"^([0-9]{4}|-)-[0-9]{2}-[0-9]{2}$",
        "description": "YYYY-MM-DD, or --MM-DD if the year is not known.",
    },
    "timezone": {"type": ["string", "null"], "description": "IANA name; null if there is a timezoneOffset."},
    "timezoneOffset": {"type": ["integer", "null"], "description": "Minutes east of UTC; null if there is a timezone."},
    "externalId": {"type": ["string", "null"], "description": "The user's id at the customer."},
    "locale": {"type": ["string", "null"], "description": "A BCP 47 language tag."},
    "attributes": {"type": "object", "description": "What templates know of the user besides."},
    "anniversaries": {
        "type": "object",
        "additionalProperties": {"type": "string", "format": "date"},
        "description": "Yearly dates besides the birthday, by type.",
    },
    "suppressed": {"type": "boolean", "description": "Whether nothing is ever sent to the user."},
    "nextMessageAt": _or_null(_instant("When the next message of any type is due; null if there will be none.")),
    "occasions": {
        "type": "array",
        "items": ref("Occasion"),
        "description": "The next occasion of each date for which there is or will be a message, in order of date.",
    },
    "createdAt": _instant("When the user was created."),
    "updatedAt": _instant("When the user was last changed."),
}

_TYPE: Schema = {"type": "string", "pattern": TYPE_PATTERN}

_OCCASION: dict[str, Schema] = {
    "type": _TYPE,
    "date": {"type": "string", "format": "date", "description": "The user's local date of it."},
    "nextMessageAt": _or_null(
        _instant(
            "When its message is due; null if there will be none, because the user is suppressed or the type has no "
            "published template."
        )
    ),
}

_EXPLANATION: dict[str, Schema] = {
    "type": _TYPE,
    "year": {"type": "integer"},
    "outcome": {"type": "string", "description": f"One of {', '.join([*Status, *NO_MESSAGE])}."},
    "reason": {"type": "string"},
    "steps": {"type": "array", "items": ref("ExplanationStep"), "description": "What led to the outcome, in order."},
}
_EXPLANATION_STEP: dict[str, Schema] = {
    "about": {"type": "string", "description": "Such as date, due, message."},
    "says": {"type": "string"},
}

_MESSAGE: dict[str, Schema] = {
    "id": _ID,
    "userId": _ID,
    "type": _TYPE,
    "status": {"type": "string", "enum": list(Status)},
    "scheduledAt": _instant("When it is due."),
    "occasionOn": {"type": "string", "format": "date", "description": "The local date that is greeted."},
    "attempts": {"type": "integer", "minimum": 0},
    "nextAttemptAt": _or_null(_instant("When a message that is retrying is tried again.")),
    "queuedAt": _or_null(_instant("When it was queued.")),
    "sentAt": _or_null(_instant("When it was first handed to the message service.")),
    "deliveredAt": _or_null(_instant("When the message service accepted it.")),
    "late": {"type": "boolean", "description": "Whether it was delivered more than 60 s after it was due."},
    "errorType": {"type": ["string", "null"], "description": f"One of {', '.join(ErrorType)}."},
    "errorDetail": {"type": ["string", "null"]},
    "template": {
        "type": ["string", "null"],
        "description": "The template that it was sent with, such as birthday or birthday.pt; null before it is tried.",
    },
    "locale": {"type": ["string", "null"], "description": "The locale of that template, or default."},
    "version": {"type": ["integer", "null"], "description": "The version of that template; 0 is what is built in."},
    "createdAt": _instant("When it was planned."),
    "updatedAt": _instant("When its status last changed."),
}

_REASON: Schema = {
    "type": "string",
    "maxLength": MAX_REASON,
    "pattern": REASON_PATTERN,
    "description": "Why, as one line of text.",
    "examples": ["asked by phone"],
}
_SUPPRESSION: dict[str, Schema] = {
    "addressHash": {"type": "string", "description": "Salted hash of the e-mail address; the list has no addresses."},
    "reason": {"type": "string"},
    "createdAt": _instant("When the address was put on the list."),
    "createdBy": {
        "type": "string",
        "description": "`api:` and the name of a key, an operator, `link` (an unsubscribe link), or `user` (the "
        "`suppressed` of a user was written).",
    },
}
_TEMPLATE_KEY: dict[str, Schema] = {
    "type": {"type": "string"},
    "locale": {"type": "string", "description": "A language tag, or default."},
    "version": {"type": "integer", "minimum": 0, "description": "0 is what is built in, or a template withdrawn."},
}
_ACTIVE_TEMPLATE = _TEMPLATE_KEY | {
    "activatedAt": _or_null(_instant("When that was decided; null for what is built in.")),
    "activatedBy": {
        "type": ["string", "null"],
        "description": "Who decided it: `api:` and the name of a key, or an operator.",
    },
}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_SAID: dict[str, Schema] = {
    "message": {"type": "string"},
    "subject": _TEXT_OR_NULL,
    "html": _TEXT_OR_NULL,
    "payload": _TEXT_OR_NULL,
}
_TEMPLATE_VERSION = (
    _TEMPLATE_KEY
    | _SAID
    | {
        "active": {"type": "boolean"},
        "createdAt": _or_null(_instant("When it was published; null for what is built in.")),
        "createdBy": {"type": ["string", "null"], "description": "Who published it."},
    }
)
_TEMPLATE_PREVIEW = {
    "version": {"type": ["integer", "null"], "description": "The version that was tried; null for a draft."}
} | _SAID

_COUNT: Schema = {"type": "integer", "minimum": 0}
_RETRY: dict[str, Schema] = {
    "errorType": {"type": "string", "enum": list(ErrorType), "description": "Only what failed with this."},
    "type": _TYPE | {"description": "Only messages of this type."},
    "userId": _ID | {"description": "Only messages of this user."},
    "olderThan": {"type": "string", "pattern": AGE_PATTERN, "description": "Only what failed longer ago than this."},
    "newerThan": {"type": "string", "pattern": AGE_PATTERN, "description": "Only what failed since."},
    "limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": RETRY_LIMIT,
        "default": RETRY_LIMIT,
        "description": "At most this many; those whose local birthday ends soonest are sent first.",
    },
}

_PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "What is wrong with which field, named by an RFC 6901 JSON pointer.",
            "items": _closed({"pointer": {"type": "string"}, "detail": {"type": "string"}}),
        },
    },
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
}

_HEALTH: dict[str, Schema] = {
    "status": {"type": "string", "enum": ["healthy", "degraded", "unhealthy"]},
    "version": {"type": "string"},
    "roles": {"type": "array", "items": {"type": "string", "enum": ["api", "scheduler", "worker"]}},
    "paused": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Message types that operators have paused.",
    },
}

_DEPENDENCY: dict[str, Schema] = {
    "status": _CHECK_STATUS,
    "latencySeconds": {"type": "number", "minimum": 0},
    "reason": {"type": ["string", "null"]},
}

_READY: dict[str, Schema] = {
    "status": {"type": "string", "enum": ["ready", "not ready"]},
    "draining": {"type": "boolean"},
    "checks": {"type": "object", "additionalProperties": _CHECK_STATUS},
}


def _profile(last_year: int) -> Schema:
    by_zone: Schema = {"required": ["timezone"], "properties": _zone_members("timezone")}
    by_offset: Schema = {"required": ["timezoneOffset"], "properties": _zone_members("timezoneOffset")}
    return _profile_members(last_year) | {"oneOf": [by_zone, by_offset]}


def _profile_replacement(last_year: int) -> Schema:
    """Return the schema of what PUT takes: a user as it was read is accepted."""
    replacement = _profile(last_year)
    read_only = {name: {"description": "Ignored: a user may be sent as it was read."} for name in READ_ONLY}
    return replacement | {"properties": replacement["properties"] | read_only}


def _profile_changes(last_year: int) -> Schema:
    by_zone: Schema = {"required": ["timezone"], "properties": _zone_members("timezone")}
    by_offset: Schema = {"required": ["timezoneOffset"], "properties": _zone_members("timezoneOffset")}
    neither: Schema = {"not": {"anyOf": [{"required": ["timezone"]}, {"required": ["timezoneOffset"]}]}}
    changes = _profile_members(last_year, or_null=True) | {"oneOf": [by_zone, by_offset, neither]}
    return {name: value for name, value in changes.items() if name != "required"}


def _profile_members(last_year: int, *, or_null: bool = False) -> Schema:
    """Return the members of a profile; ``or_null`` says that a null takes a yearly date back."""
    generated = ProfileInput.model_json_schema()
    own = {name: {k: v for k, v in schema.items() if k != "title"} for name, schema in generated["properties"].items()}
    birth = {name: value for name, value in own["dateOfBirth"].items() if name != "format"}
    description = (
        f"{birth['description']} From {EARLIEST_DATE} to today; the pattern, which cannot say that, ends earlier."
    )
    dates = _date_pattern(last_year)
    own["dateOfBirth"] = birth | {"description": description, "pattern": f"({dates})|({_BIRTHDAY_PATTERN})"}
    yearly: Schema = {"type": ["string", "null"] if or_null else "string", "pattern": dates}
    own["anniversaries"] |= {
        "type": ["object", "null"],
        "propertyNames": {"pattern": TYPE_PATTERN, "not": {"const": BIRTHDAY}},
        "additionalProperties": yearly,
        "maxProperties": MAX_ANNIVERSARIES,
    }
    own["attributes"] |= {"anyOf": [ref("Attributes"), {"type": "null"}]}
    own["anniversaries"].pop("anyOf")
    own["timezone"] = {"description": own["timezone"]["description"], "anyOf": [ref("Timezone"), {"type": "null"}]}
    own["timezoneOffset"] = {
        "description": own["timezoneOffset"]["description"],
        "anyOf": [ref("TimezoneOffset"), {"type": "null"}],
    }
    return {"type": "object", "properties": own, "required": generated["required"], "additionalProperties": False}


_ATTRIBUTE_TEXT: Schema = {"type": "string", "pattern": r"^[^\x00]*$"}
_ATTRIBUTES: Schema = {
    "type": "object",
    "propertyNames": _ATTRIBUTE_TEXT,
    "additionalProperties": ref("Attribute"),
    "description": f"At most {MAX_ATTRIBUTES_BYTES} bytes, nested at most {MAX_ATTRIBUTES_DEPTH} levels deep.",
}
_ATTRIBUTE: Schema = {
    "anyOf": [
        _ATTRIBUTE_TEXT,
        *({"type": scalar} for scalar in ("number", "boolean", "null")),
        {"type": "array", "items": ref("Attribute")},
        ref("Attributes"),
    ]
}


def _zone_members(given: str) -> dict[str, Schema]:
    names = {"timezone": "Timezone", "timezoneOffset": "TimezoneOffset"}
    return {member: ref(name) if member == given else {"type": "null"} for member, name in names.items()}


_BIRTHDAY_PATTERN = "^--((0[1-9]|1[0-2])-(0[1-9]|[12][0-9])|(0[13-9]|1[0-2])-30|(0[13578]|1[02])-31)$"


def _date_pattern(last_year: int) -> str:
    """Return a pattern of all calendar dates from 1900 to ``last_year``, with or without a time."""
    recent = "|".join(str(year) for year in range(2000, last_year + 1))
    recent_leap = "|".join(str(year) for year in range(2000, last_year + 1, 4))
    day = "((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
    leap_day = rf"(19(0[48]|[2468][048]|[13579][26])|{recent_leap})-02-29"
    time = r"[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?"
    return f"^((19[0-9][0-9]|{recent})-{day}|{leap_day})({time})?$"
