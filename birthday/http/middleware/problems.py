"""Turns our own errors and aiohttp's into HTTP answers, as RFC 9457 problem details. No other module does."""

import json
from typing import Any, assert_never, cast
from uuid import UUID

import orjson
import structlog
from aiohttp import hdrs, web

from birthday.errors import (
    ConflictError,
    FieldError,
    InProgressError,
    InvalidInputError,
    NotFoundError,
    OutdatedError,
    UnavailableError,
    WrongClockError,
)
from birthday.http import kinds
from birthday.http.context import Served
from birthday.http.kinds import KINDS, PAGE, Kind, kind_of
from birthday.http.route import Handler

log = structlog.get_logger()

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
_START = '{"type":"'
_RELATIVE = f"{_START}{PAGE}".encode()


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error of a request into a problem document.

    The last ``except`` is the HTTP counterpart of the one per tick and the one per message: a bug fails one request
    only, is logged with its traceback, and shows the client no internals.
    """
    try:
        fault = cast("Served", request.protocol).fault
        return await handler(request) if fault is None else _http_problem(request, fault)
    except (InvalidInputError, NotFoundError, ConflictError, OutdatedError, InProgressError, UnavailableError) as error:
        return _domain_problem(error, changes=request.method not in {"GET", "HEAD", "OPTIONS"})
    except web.HTTPException as error:
        return _http_problem(request, error)
    except Exception:
        log.exception("http.failed")
        return problem(kinds.INTERNAL_ERROR, "an unexpected error; the log has it under the X-Request-ID")


def problem(
    kind: Kind,
    detail: str,
    errors: tuple[FieldError, ...] = (),
    headers: dict[str, str] | None = None,
    existing_id: UUID | None = None,
) -> web.Response:
    """Return a problem document. ``errors`` are the invalid fields."""
    document: dict[str, Any] = {
        "type": kind.uri(),
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": kind.code,
        "requestId": structlog.contextvars.get_contextvars().get("request_id"),
    }
    if existing_id is not None:
        document["existingId"] = str(existing_id)
    if errors:
        document["errors"] = [_error(error) for error in errors]
    try:
        body = orjson.dumps(document)
    except TypeError:
        # A byte of the request that is not UTF-8 has become a lone surrogate, which only ``json`` can escape.
        body = json.dumps(document, separators=(",", ":")).encode()
    return web.Response(body=body, status=kind.status, headers=headers, content_type=CONTENT_TYPE)


def locate(answer: web.StreamResponse, address: str) -> None:
    """Make the ``type`` of a problem document absolute; ``address`` is where the world reaches this API."""
    if isinstance(answer, web.Response) and answer.content_type == CONTENT_TYPE and isinstance(answer.body, bytes):
        answer.body = answer.body.replace(_RELATIVE, f"{_START}{address}{PAGE}".encode(), 1)


def _error(error: FieldError) -> dict[str, str]:
    place = {"parameter": error.parameter} if error.parameter else {"pointer": error.pointer}
    return place | {"detail": error.detail}


def _domain_problem(
    error: InvalidInputError | NotFoundError | ConflictError | OutdatedError | InProgressError | UnavailableError,
    *,
    changes: bool,
) -> web.Response:
    match error:
        case InvalidInputError():
            is_parameter = any(one.parameter for one in error.fields)
            kind = kinds.INVALID_PARAMETER if is_parameter else KINDS[error.code]
            return problem(kind, str(error), error.fields)
        case NotFoundError():
            return problem(KINDS[error.code], str(error))
        case ConflictError():
            fields = (FieldError(error.pointer, str(error)),) if error.pointer else ()
            return problem(KINDS[error.code], str(error), fields, existing_id=error.existing_id)
        case OutdatedError():
            return problem(kinds.OUTDATED, str(error))
        case InProgressError():
            return problem(kinds.IN_PROGRESS, str(error), headers={"Retry-After": "1"})
        case WrongClockError():
            # The clock guard has logged how far the clock is off.
            detail = "the clock of this server is wrong, so nothing was changed: try again later, or another server"
            return problem(kinds.WRONG_CLOCK, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
        case UnavailableError():
            # The address and the error of the resource go to the log only; a client can only try again.
            is_unknown = changes and error.maybe_done
            unknown = {"outcome": "unknown"} if is_unknown else {}
            log.error("http.unavailable", resource=error.resource, reason=str(error), **unknown)
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            detail = f"the {error.resource} cannot be used now"
            if is_unknown:
                detail += "; whether the request was carried out is not known: send the same request again"
            return problem(kinds.OUTCOME_UNKNOWN if is_unknown else kinds.UNAVAILABLE, detail, headers=headers)
        case _:
            assert_never(error)


def _http_problem(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    match error:
        case web.HTTPMethodNotAllowed(allowed_methods=allowed):
            names = ", ".join(sorted(allowed))
            return problem(
                kinds.WRONG_METHOD, f"this method is not possible here, {names} is", headers={"Allow": names}
            )
        case web.HTTPNotFound():
            return problem(kinds.NOT_FOUND, "there is nothing at this path")
        case web.HTTPRequestEntityTooLarge():
            detail = f"the body is too large: at most {request.client_max_size} bytes are accepted"
            return problem(kinds.BODY_TOO_LARGE, detail)
        case _:
            accepted = error.headers.get(hdrs.ACCEPT_ENCODING)
            headers = {"Accept-Encoding": accepted} if accepted else None
            return problem(kind_of(error.status), error.text or error.reason, headers=headers)
