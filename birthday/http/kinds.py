"""The kinds of problems that the API answers with, by their codes: for answers, the OpenAPI document and ``/docs``.

The codes are part of the contract: a code never changes its meaning.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

PAGE: Final = "/docs/problems"
"""The page that explains the kinds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. ``meaning`` tells a client what has happened and what it can do."""

    code: str
    status: HTTPStatus
    title: str
    meaning: str

    @property
    def uri(self) -> str:
        """The ``type`` of RFC 9457: a reference to the explanation, relative to the address of the API."""
        return f"{PAGE}#{self.code}"


MALFORMED: Final = Kind(
    "malformed_request",
    HTTPStatus.BAD_REQUEST,
    "Malformed request",
    "The request is not HTTP, or its body is not JSON in UTF-8. The same request fails again.",
)
NO_KEY: Final = Kind(
    "no_key",
    HTTPStatus.UNAUTHORIZED,
    "No API key",
    "Send a key as Authorization: Bearer, or in the header X-API-Key.",
)
UNKNOWN_KEY: Final = Kind("unknown_key", HTTPStatus.UNAUTHORIZED, "Unknown API key", "The key is not known.")
ENDED_KEY: Final = Kind(
    "ended_key", HTTPStatus.UNAUTHORIZED, "API key ended", "The key was revoked, or has expired. Use a new one."
)
MISSING_SCOPE: Final = Kind(
    "missing_scope",
    HTTPStatus.FORBIDDEN,
    "The key has not the scope",
    "Use a key with the scope that the detail names: read, write or admin; each includes the ones before it.",
)
FOREIGN_HOST: Final = Kind(
    "foreign_host",
    HTTPStatus.FORBIDDEN,
    "Only for this machine",
    "Without any API key, the API answers to this machine only, under the name localhost or a loopback address.",
)
NOT_FOUND: Final = Kind(
    "not_found", HTTPStatus.NOT_FOUND, "Not found", "There is nothing at this path. It may have been removed."
)
UNKNOWN_USER: Final = Kind(
    "unknown_user", HTTPStatus.NOT_FOUND, "Unknown user", "There is no such user. The user may have been deleted."
)
UNKNOWN_MESSAGE: Final = Kind(
    "unknown_message",
    HTTPStatus.NOT_FOUND,
    "Unknown message",
    "There is no message with this id. Messages are removed after the time that RETENTION_DAYS sets.",
)
UNKNOWN_TEMPLATE: Final = Kind(
    "unknown_template",
    HTTPStatus.NOT_FOUND,
    "Unknown template",
    "Nothing of this type and locale is published, or not this version.",
)
WRONG_METHOD: Final = Kind(
    "method_not_allowed",
    HTTPStatus.METHOD_NOT_ALLOWED,
    "Method not allowed",
    "The header Allow names the methods that are possible at this path.",
)
TOO_SLOW: Final = Kind(
    "request_timeout",
    HTTPStatus.REQUEST_TIMEOUT,
    "Request not complete in time",
    "The request did not arrive in time. Nothing was done; send it again.",
)
CONFLICT: Final = Kind(
    "conflict", HTTPStatus.CONFLICT, "Conflict", "The request does not fit what is stored; the detail says why."
)
EMAIL_TAKEN: Final = Kind(
    "email_taken",
    HTTPStatus.CONFLICT,
    "E-mail address taken",
    "Another user has this e-mail address. existingId is the id of that user.",
)
EXTERNAL_ID_TAKEN: Final = Kind(
    "external_id_taken",
    HTTPStatus.CONFLICT,
    "External id taken",
    "Another user has this externalId. existingId is the id of that user.",
)
NOT_FAILED: Final = Kind(
    "not_failed", HTTPStatus.CONFLICT, "The message has not failed", "Only failed messages can be sent again."
)
DEFAULT_NEEDED: Final = Kind(
    "default_needed",
    HTTPStatus.CONFLICT,
    "The type needs a default template",
    "A type with templates needs one of the locale default, for users of all other locales. Publish it first.",
)
IN_PROGRESS: Final = Kind(
    "in_progress",
    HTTPStatus.CONFLICT,
    "Still being carried out",
    "Another request with the same Idempotency-Key is not done yet. Send the same again after Retry-After seconds.",
)
ANSWER_ERASED: Final = Kind(
    "answer_erased",
    HTTPStatus.GONE,
    "Answer erased",
    "The request was carried out before, but its answer was erased with the person whom it was about.",
)
OUTDATED: Final = Kind(
    "outdated",
    HTTPStatus.PRECONDITION_FAILED,
    "Changed by somebody else",
    "The resource is not what If-Match or If-None-Match says. Read it again, and decide again. Nothing was done.",
)
BODY_TOO_LARGE: Final = Kind(
    "body_too_large",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "Body too large",
    "The body is larger than the detail says is accepted. Nothing was done.",
)
TARGET_TOO_LONG: Final = Kind(
    "target_too_long", HTTPStatus.REQUEST_URI_TOO_LONG, "Path and query too long", "Ask for less at once."
)
UNSUPPORTED_MEDIA_TYPE: Final = Kind(
    "unsupported_media_type",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "Unsupported media type",
    "Content-Type says something else than what is accepted here, or the body is compressed.",
)
EXPECTATION_FAILED: Final = Kind(
    "expectation_failed", HTTPStatus.EXPECTATION_FAILED, "Expectation failed", "Expect can be 100-continue only."
)
INVALID_FIELD: Final = Kind(
    "invalid_field",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "Invalid fields",
    "Some of the body is not accepted. errors names each field by a JSON pointer, and says what is accepted. "
    "Nothing was done.",
)
INVALID_PARAMETER: Final = Kind(
    "invalid_parameter",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "Invalid parameters",
    "Some of the query or path is not accepted. errors names each parameter, and says what is accepted.",
)
KEY_REUSED: Final = Kind(
    "idempotency_key_reused",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "Idempotency-Key used before",
    "The same Idempotency-Key came with another request. Use a new one for each request.",
)
RATE_LIMITED: Final = Kind(
    "rate_limited",
    HTTPStatus.TOO_MANY_REQUESTS,
    "Too many requests",
    "The client sends more requests than are accepted. Wait for as many seconds as Retry-After says.",
)
HEAD_TOO_LARGE: Final = Kind(
    "head_too_large",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "Head too large",
    "The headers are longer than the detail says is accepted.",
)
INTERNAL_ERROR: Final = Kind(
    "internal_error",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "Internal error",
    "A mistake of the server. Its log tells more about the request, under the requestId.",
)
UNAVAILABLE: Final = Kind(
    "unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Unavailable for the moment",
    "Something that is needed is away. Nothing was done; send the same request again after Retry-After seconds.",
)
OUTCOME_UNKNOWN: Final = Kind(
    "outcome_unknown",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Whether it was done is not known",
    "The connection to the database broke before it confirmed. Send the same request again.",
)
WRONG_CLOCK: Final = Kind(
    "wrong_clock",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The clock of this server is wrong",
    "This server changes nothing until its clock is right. Send the same request again, or to another server.",
)
WRONG_VERSION: Final = Kind(
    "http_version_not_supported",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    "HTTP version not supported",
    "HTTP/1.0 and HTTP/1.1 are accepted.",
)

KINDS: Final[dict[str, Kind]] = {kind.code: kind for kind in list(globals().values()) if isinstance(kind, Kind)}
"""All kinds by their codes."""

# Of several kinds of one status, the first is the most general.
_OF_STATUS: Final[dict[int, Kind]] = {kind.status: kind for kind in reversed(KINDS.values())}


def kind_of(status: int) -> Kind:
    """Return the most general kind of a status."""
    return _OF_STATUS[status]
