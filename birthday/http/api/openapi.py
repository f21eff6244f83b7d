"""The OpenAPI 3.1 document at ``/openapi.json``: every resource with every answer that it can give."""

from importlib.metadata import version
from typing import Any

from birthday.core.fields import LOCALE_PATTERN, TYPE_PATTERN
from birthday.core.message import ErrorType, Status
from birthday.core.occasion import LAST_YEAR
from birthday.core.template import DEFAULT
from birthday.http.api.requests import DEFAULT_LIMIT, MAX_BODY_BYTES, MAX_LIMIT
from birthday.http.api.schemas import Schema, ref, schemas

_JSON = "application/json"
_PROBLEM_JSON = "application/problem+json"

_PROBLEMS = {
    400: "The body is not JSON.",
    401: "No API key, or one that is not known.",
    403: "The API key may not do this.",
    404: "There is none with this id.",
    409: "It clashes with what is stored.",
    413: f"The body is larger than {MAX_BODY_BYTES} bytes.",
    415: "The body is not said to be JSON.",
    422: "Fields or parameters that are not accepted.",
    429: "More requests per second than are accepted.",
    500: "A mistake of the server.",
    503: "Something that is needed is away for the moment.",
}
_ANYWHERE = (401, 403, 429, 500, 503)
_BODY = (400, 413, 415, 422)


def document(last_year: int, *, with_keys: bool) -> dict[str, Any]:
    """Return the document. ``last_year`` is the last complete calendar year; ``with_keys`` adds how to send a key."""
    components: dict[str, Any] = {
        "schemas": schemas(last_year),
        "responses": {str(status): _problem_response(status) for status in _PROBLEMS},
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Birthday Scheduler",
            "version": version("birthday-scheduler"),
            "description": "One birthday message per user and year, at 09:00 where the user lives.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": _USER_PATHS | _SUPPRESSION_PATHS | _MESSAGE_PATHS | _TEMPLATE_PATHS | _PROBE_PATHS,
        "components": components,
    }
    if with_keys:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        described["security"] = [{"bearer": []}, {"header": []}]
    return described


def _problem_response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": _PROBLEMS[status],
        "content": {_PROBLEM_JSON: {"schema": ref("Problem")}},
    }
    if status in {429, 503}:
        response["headers"] = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}}
    return response


def _operation(
    tag: str, name: str, summary: str, answer: dict[str, Any], problems: tuple[int, ...] = (), **more: object
) -> dict[str, Any]:
    errors = {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted({*_ANYWHERE, *problems})}
    return {"operationId": name, "tags": [tag], "summary": summary, **more, "responses": answer | errors}


def _probe(name: str, summary: str, schema: str, failure: str | None = None) -> dict[str, Any]:
    answers = _answer(200, "It does.", schema)
    if failure:
        answers |= _answer(503, failure, schema)
    return {"get": {"operationId": name, "tags": ["Probes"], "summary": summary, "security": [], "responses": answers}}


def _answer(status: int, description: str, schema: str, **more: object) -> dict[str, Any]:
    return {str(status): {"description": description, "content": {_JSON: {"schema": ref(schema)}}, **more}}


def _body(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {_JSON: {"schema": ref(schema), "example": example}}}


def _parameter(name: str, description: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _cursor(length: int) -> dict[str, Any]:
    schema = {"type": "string", "pattern": f"^[A-Za-z0-9_-]{{{length}}}$"}
    return _parameter("cursor", "The `nextCursor` of the page before; without it, the first page.", schema)


_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
_LIMIT = _parameter(
    "limit",
    "How many a page has at most.",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
_TYPE = _parameter("type", "Only messages of this type.", {"type": "string", "pattern": TYPE_PATTERN})
_ONLY_TYPE = _parameter(
    "type", "Only the occasion of this type; without it, of all.", {"type": "string", "pattern": TYPE_PATTERN}
)
_YEAR = _parameter(
    "year", "Default: the current year where the user is.", {"type": "integer", "minimum": 1, "maximum": LAST_YEAR}
)
_STATUS = _parameter("status", "Only messages of this status.", {"type": "string", "enum": list(Status)})
_DAY_OR_INSTANT = {
    "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}],
    "examples": ["2026-03-01", "2026-03-01T09:00:00Z"],
}
_FROM = _parameter("from", "Only messages due at this instant or later; a date begins at 00:00 UTC.", _DAY_OR_INSTANT)
_TO = _parameter("to", "Only messages due before this instant; a date is taken up to its end, UTC.", _DAY_OR_INSTANT)

_TO_NEW_USER = {
    name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
    for name in ("readUser", "replaceUser", "changeUser", "deleteUser", "listMessagesOfUser")
}
_ADA = {
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
_LOCATION = {"Location": {"required": True, "schema": {"type": "string"}, "description": "Where the user is."}}

_USER_PATHS: dict[str, Any] = {
    "/users": {
        "post": _operation(
            "Users",
            "createUser",
            "Create a user",
            _answer(201, "The user.", "User", headers=_LOCATION, links=_TO_NEW_USER),
            (*_BODY, 409),
            requestBody=_body("Profile", _ADA),
        ),
        "get": _operation(
            "Users",
            "listUsers",
            "List users in order of creation",
            _answer(200, "A page of users.", "UserPage"),
            (422,),
            parameters=[_LIMIT, _cursor(22)],
        ),
    },
    "/users/{id}": {
        "parameters": [_ID],
        "get": _operation("Users", "readUser", "Read a user", _answer(200, "The user.", "User"), (404,)),
        "put": _operation(
            "Users",
            "replaceUser",
            "Replace a user's profile; a moved birthday or zone moves the message",
            _answer(200, "The user.", "User"),
            (*_BODY, 404, 409),
            requestBody=_body("ProfileReplacement", _ADA),
        ),
        "patch": _operation(
            "Users",
            "changeUser",
            "Change what is given of a user's profile; a moved birthday or zone moves the message",
            _answer(200, "The user.", "User"),
            (*_BODY, 404, 409),
            requestBody=_body(
                "ProfileChanges", {"timezone": "America/New_York", "anniversaries": {"work-anniversary": None}}
            ),
        ),
        "delete": _operation(
            "Users",
            "deleteUser",
            "Delete a user; what is pending is cancelled",
            {"204": {"description": "Done."}},
            (404,),
        ),
    },
    "/users/{id}/messages": {
        "parameters": [_ID],
        "get": _operation(
            "Messages",
            "listMessagesOfUser",
            "List a user's messages, newest first",
            _answer(200, "A page of messages.", "MessagePage"),
            (404, 422),
            parameters=[_LIMIT, _cursor(31)],
        ),
    },
}

_SUPPRESSION_PATHS: dict[str, Any] = {
    "/users/{id}/explain": {
        "parameters": [_ID],
        "get": _operation(
            "Users",
            "explainUser",
            "Explain what came of a user's occasions of a year; deleted users too, until retention removes them",
            _answer(200, "The reason for each occasion.", "Explained"),
            (404, 422),
            parameters=[_YEAR, _ONLY_TYPE],
        ),
    },
    "/users/{id}/suppression": {
        "parameters": [_ID],
        "put": _operation(
            "Suppressions",
            "suppressUser",
            "Send a user nothing more; what is pending is cancelled",
            _answer(200, "The entry of the list. If there was one already, it has stayed as it was.", "Suppression"),
            (*_BODY, 404),
            requestBody=_body("SuppressionReason", {"reason": "asked by phone"}),
        ),
        "delete": _operation(
            "Suppressions",
            "unsuppressUser",
            "Take a user's address off the list of suppressed addresses",
            {"204": {"description": "It is not on the list any more."}},
            (404,),
        ),
    },
    "/suppressions": {
        "get": _operation(
            "Suppressions",
            "listSuppressions",
            "List suppressed addresses, as hashes, newest first",
            _answer(200, "A page of the list.", "SuppressionPage"),
            (422,),
            parameters=[_LIMIT, _cursor(52)],
        ),
    },
}

_MESSAGE_PATHS: dict[str, Any] = {
    "/messages": {
        "get": _operation(
            "Messages",
            "listMessages",
            "List messages by status and time, newest first",
            _answer(200, "A page of messages.", "MessagePage"),
            (422,),
            parameters=[_STATUS, _TYPE, _FROM, _TO, _LIMIT, _cursor(31)],
        ),
    },
    "/messages/retry": {
        "post": _operation(
            "Messages",
            "retryMessages",
            "Queue all failed messages again that the body selects; an empty object selects all",
            _answer(202, "How many were queued, and how many more are selected.", "Retried"),
            _BODY,
            requestBody=_body("Retry", {"errorType": ErrorType.EXTERNAL_API_ERROR, "newerThan": "24h"}),
        ),
    },
    "/messages/{id}": {
        "parameters": [_ID],
        "get": _operation("Messages", "readMessage", "Read a message", _answer(200, "The message.", "Message"), (404,)),
    },
    "/messages/{id}/retry": {
        "parameters": [_ID],
        "post": _operation(
            "Messages",
            "retryMessage",
            "Queue a failed message again",
            _answer(202, "The message, queued.", "Message"),
            (404, 409),
        ),
    },
}

_TEMPLATE_KEY = [
    {"name": "type", "in": "path", "required": True, "schema": {"type": "string", "pattern": TYPE_PATTERN}},
    {
        "name": "locale",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{DEFAULT}$|{LOCALE_PATTERN}", "examples": ["default", "pt-BR"]},
    },
]
_TEMPLATE_PATHS: dict[str, Any] = {
    "/templates": {
        "get": _operation(
            "Templates",
            "listTemplates",
            "List which version of each template is active",
            _answer(200, "All templates.", "TemplateList"),
        ),
    },
    "/templates/{type}/{locale}": {
        "parameters": _TEMPLATE_KEY,
        "get": _operation(
            "Templates",
            "readTemplate",
            "Read the active version of a template",
            _answer(200, "The version.", "TemplateVersion"),
            (404, 422),
        ),
        "put": _operation(
            "Templates",
            "publishTemplate",
            "Publish a template; it is tried for every user whom it concerns, and refused if it fails for some",
            _answer(201, "The new version, which is active.", "TemplateVersion")
            | _answer(200, "The version that was active already: it is the same.", "TemplateVersion"),
            (*_BODY, 404, 409),
            requestBody=_body("PublishInput", {"message": "Feliz aniversário, {{ first_name }}!"}),
        ),
    },
    "/templates/{type}/{locale}/versions": {
        "parameters": _TEMPLATE_KEY,
        "get": _operation(
            "Templates",
            "listTemplateVersions",
            "List the newest versions of a template",
            _answer(200, "Versions, the newest first.", "TemplateVersions"),
            (404, 422),
            parameters=[_LIMIT],
        ),
    },
    "/templates/{type}/{locale}/preview": {
        "parameters": _TEMPLATE_KEY,
        "post": _operation(
            "Templates",
            "previewTemplate",
            "Show what a template says to a user, or to somebody made up",
            _answer(200, "What it says.", "TemplatePreview"),
            (*_BODY, 404),
            requestBody=_body("TrialInput", {"values": {"firstName": "Grace", "years": 40}}),
        ),
    },
    "/templates/{type}/{locale}/test": {
        "parameters": _TEMPLATE_KEY,
        "post": _operation(
            "Templates",
            "testTemplate",
            "Send what a template says to an address, marked as a test",
            _answer(200, "Whether it was accepted.", "TemplateTest"),
            (*_BODY, 404),
            requestBody=_body("TestInput", {"to": "dev@example.com"}),
        ),
    },
    "/templates/{type}/{locale}/activate": {
        "parameters": _TEMPLATE_KEY,
        "post": _operation(
            "Templates",
            "activateTemplate",
            "Make another version of a template active",
            _answer(200, "What is active now.", "ActiveTemplate"),
            (*_BODY, 404, 409),
            requestBody=_body("ActivateInput", {"version": 1}),
        ),
    },
}

_PROBE_PATHS: dict[str, Any] = {
    "/health": _probe("health", "How the process does", "Health", "It can serve nothing."),
    "/health/detailed": _probe("healthDetailed", "How each dependency does", "DetailedHealth", "It can serve nothing."),
    "/health/db": _probe("healthDatabase", "How the database does", "Dependency", "It cannot be used."),
    "/health/queue": _probe("healthQueue", "How the queue does", "Dependency", "It cannot be used."),
    "/ready": _probe("ready", "Whether requests should be sent here", "Ready", "They should not."),
    "/alive": _probe("alive", "Whether the process answers at all", "Alive"),
    "/metrics": {
        "get": {
            "operationId": "metrics",
            "tags": ["Probes"],
            "summary": "The metrics of this process",
            "security": [],
            "responses": {
                "200": {
                    "description": "Prometheus text format, or OpenMetrics if asked for.",
                    "content": {
                        "text/plain": {"schema": {"type": "string"}},
                        "application/openmetrics-text": {"schema": {"type": "string"}},
                    },
                }
            },
        }
    },
}
