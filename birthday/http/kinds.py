"""The kinds of problems that the API answers with, by their codes: for answers, the OpenAPI document and ``/docs``.

The codes are part of the contract: a code never changes its meaning.
"""

from dataclasses import dataclass
from typing import Final

PAGE: Final = "/docs/problems"
"""The page that explains the kinds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. ``meaning`` tells a client what has happened and what it can do."""

    code: str
    status: int
    meaning: str

    @property
    def title(self) -> str:
        """The code for people."""
        return self.code.replace("_", " ").capitalize()

    def uri(self, address: str = "") -> str:
        """Return the ``type`` of RFC 9457: where the explanation is, relative without the address of the API."""
        return f"{address}{PAGE}#{self.code}"


# Of several kinds of one status, the first is the most general.
MALFORMED = Kind("malformed_request", 400, "The request is not HTTP, or its body is not JSON in UTF-8.")
NO_KEY = Kind("no_key", 401, "Send an API key as Authorization: Bearer, or in the header X-API-Key.")
UNKNOWN_KEY = Kind("unknown_key", 401, "The API key is not known.")
ENDED_KEY = Kind("ended_key", 401, "The API key was revoked, or has expired. Use a new one.")
MISSING_SCOPE = Kind("missing_scope", 403, "The API key has not the scope that the detail names: read, write or admin.")
FOREIGN_HOST = Kind("foreign_host", 403, "Without any API key, the API answers to this machine only, as localhost.")
NOT_FOUND = Kind("not_found", 404, "There is nothing at this path.")
UNKNOWN_USER = Kind("unknown_user", 404, "There is no such user. The user may have been deleted.")
UNKNOWN_MESSAGE = Kind("unknown_message", 404, "There is no such message. Messages are removed after RETENTION_DAYS.")
UNKNOWN_TEMPLATE = Kind("unknown_template", 404, "Nothing of this type and locale is published, or not this version.")
UNKNOWN_KEY_ID = Kind("unknown_key_id", 404, "There is no API key with this id, or it works no more.")
WRONG_METHOD = Kind("method_not_allowed", 405, "The header Allow names the methods that are possible at this path.")
NOT_ACCEPTABLE = Kind("not_acceptable", 406, "Accept names no format that can be had here.")
TOO_SLOW = Kind("request_timeout", 408, "The request did not arrive in time. Nothing was done; send it again.")
CONFLICT = Kind("conflict", 409, "The request does not fit what is stored; the detail says why.")
EMAIL_TAKEN = Kind("email_taken", 409, "Another user has this e-mail address: the one of existingId.")
EXTERNAL_ID_TAKEN = Kind("external_id_taken", 409, "Another user has this externalId: the one of existingId.")
NOT_FAILED = Kind("not_failed", 409, "Only failed messages can be sent again.")
DEFAULT_NEEDED = Kind("default_needed", 409, "The type needs a template of the locale default, for all other users.")
IN_PROGRESS = Kind("in_progress", 409, "A request with this Idempotency-Key is not done yet. Repeat it a little later.")
ANSWER_ERASED = Kind(
    "answer_erased", 410, "It was done before, but the answer was erased with the person it was about."
)
OUTDATED = Kind("outdated", 412, "The resource is not what If-Match or If-None-Match says. Nothing was done.")
BODY_TOO_LARGE = Kind("body_too_large", 413, "The body is larger than the detail says. Nothing was done.")
TARGET_TOO_LONG = Kind("target_too_long", 414, "Path and query are longer than the detail says.")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported_media_type", 415, "The Content-Type is not accepted here, or any encoding.")
EXPECTATION_FAILED = Kind("expectation_failed", 417, "Expect can be 100-continue only.")
INVALID_FIELD = Kind("invalid_field", 422, "Fields of the body are not accepted: errors names each. Nothing was done.")
INVALID_PARAMETER = Kind("invalid_parameter", 422, "Parameters of query or path are not accepted: errors names each.")
KEY_REUSED = Kind("idempotency_key_reused", 422, "This Idempotency-Key came with another request. Use a new one.")
RATE_LIMITED = Kind(
    "rate_limited", 429, "More requests than are accepted. Wait for as many seconds as Retry-After says."
)
HEAD_TOO_LARGE = Kind("head_too_large", 431, "The headers are longer than the detail says.")
INTERNAL_ERROR = Kind("internal_error", 500, "A mistake of the server. Its log tells more, under the requestId.")
UNAVAILABLE = Kind(
    "unavailable", 503, "Something that is needed is away. Nothing was done; send the request again later."
)
OUTCOME_UNKNOWN = Kind("outcome_unknown", 503, "Whether it was done is not known. Send the same request again.")
WRONG_CLOCK = Kind(
    "wrong_clock", 503, "The clock of this server is wrong. Send the request again later, or to another."
)
WRONG_VERSION = Kind("http_version_not_supported", 505, "HTTP/1.0 and HTTP/1.1 are accepted.")

KINDS: Final[dict[str, Kind]] = {kind.code: kind for kind in list(globals().values()) if isinstance(kind, Kind)}
"""All kinds by their codes."""

_OF_STATUS: Final[dict[int, Kind]] = {kind.status: kind for kind in reversed(KINDS.values())}


def kind_of(status: int) -> Kind:
    """Return the most general kind of a status."""
    return _OF_STATUS[status]
