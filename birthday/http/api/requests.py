"""Reads the parts of a request: JSON body, id in the path, and query parameters."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

from aiohttp import web

from birthday.core.document import parse_json
from birthday.core.fields import TYPE_PATTERN
from birthday.core.message import Status
from birthday.core.occasion import LAST_YEAR
from birthday.errors import FieldError, InvalidInputError, NotFoundError
from birthday.http.context import SUBJECT

MAX_BODY_BYTES = 64 * 1024
"""Many times the size of the longest user profile."""

MAX_LIMIT = 500
DEFAULT_LIMIT = 50

UUID_PATTERN = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DAY = timedelta(days=1)
_LIMIT = re.compile(r"[1-9][0-9]{0,2}")
_YEAR = re.compile(r"[0-9]{1,4}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# The '+' of an offset that is not percent-encoded arrives as a space.
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d+)?)(?:([Zz])|([+ -])(\d\d:\d\d))", re.ASCII)


async def read_json(request: web.Request) -> object:
    """Return the body, parsed.

    Raises:
        HTTPUnsupportedMediaType: if it does not say that it is JSON.
        HTTPBadRequest: if it is not JSON.
        HTTPException: if it cannot be read; see ``read_body``.
    """
    given = request.headers.get("Content-Type")
    # Nearly all clients send exactly this text, which needs no parsing.
    if given != "application/json" and not _is_json(request):
        text = "another Content-Type is given" if given else "Content-Type is missing"
        raise web.HTTPUnsupportedMediaType(text=f"{text}; application/json in UTF-8 is accepted")
    body = await read_body(request)
    try:
        return parse_json(body)
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON: {error}") from None


async def read_body(request: web.Request) -> bytes:
    """Return the body; it may be read again.

    Raises:
        HTTPRequestEntityTooLarge: if it is too large; the rest of it is not read.
        HTTPBadRequest: if it is incomplete.
        HTTPRequestTimeout: if it did not arrive in time.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(max_size=MAX_BODY_BYTES)
    try:
        return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"the body could not be read: {error}") from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise web.HTTPBadRequest(text=f"the body could not be read: {error}") from None


def _is_json(request: web.Request) -> bool:
    charset = (request.charset or "utf-8").lower()
    return request.content_type == "application/json" and charset in {"utf-8", "utf8"}


def read_id(request: web.Request, kind: str) -> UUID:
    """Return the id in the path, and note it as the subject of the request.

    Raises:
        NotFoundError: if it is not a UUID, because then nothing can have this id.
    """
    text = request.match_info["id"]
    if not UUID_PATTERN.fullmatch(text):
        raise NotFoundError(f"there is no {kind} with this id: it is not a UUID")
    found = UUID(text)
    request[SUBJECT] = str(found)
    return found


def read_query(request: web.Request, *accepted: str) -> dict[str, str]:
    """Return the parameters of the query.

    Raises:
        InvalidInputError: if one is not ``accepted`` or given twice.
    """
    errors = []
    for name in dict.fromkeys(request.query):
        if name not in accepted:
            errors.append(FieldError(f"/{name}", f"is not a parameter here; accepted are {', '.join(accepted)}"))
        elif len(request.query.getall(name)) > 1:
            errors.append(FieldError(f"/{name}", "is given more than once"))
    if errors:
        raise InvalidInputError(*errors)
    return dict(request.query)


def read_limit(query: dict[str, str]) -> int:
    """Return how many items a page may have.

    Raises:
        InvalidInputError: if ``limit`` is not a whole number from 1 to ``MAX_LIMIT``.
    """
    text = query.get("limit", str(DEFAULT_LIMIT))
    if not _LIMIT.fullmatch(text) or int(text) > MAX_LIMIT:
        raise InvalidInputError(FieldError("/limit", f"a whole number from 1 to {MAX_LIMIT} is accepted"))
    return int(text)


def read_year(query: dict[str, str]) -> int | None:
    """Return the ``year``; None without it.

    Raises:
        InvalidInputError: if it is not a year of the calendar.
    """
    text = query.get("year")
    if text is not None and (not _YEAR.fullmatch(text) or not 1 <= int(text) <= LAST_YEAR):
        raise InvalidInputError(FieldError("/year", f"a year from 1 to {LAST_YEAR} is accepted"))
    return None if text is None else int(text)


def read_status(query: dict[str, str]) -> tuple[Status, ...]:
    """Return the states that ``status`` selects; all states without it.

    Raises:
        InvalidInputError: if there is no such state.
    """
    text = query.get("status")
    if text is None:
        return tuple(Status)
    if text not in set(Status):
        raise InvalidInputError(FieldError("/status", f"one of {', '.join(Status)} is accepted"))
    return (Status(text),)


def parse_message_type(value: object) -> str:
    """Return the type of messages that a client names.

    Raises:
        ValueError: if it is not the name of a type.
    """
    if not isinstance(value, str) or not re.fullmatch(TYPE_PATTERN, value):
        raise ValueError("the name of a type is accepted, such as birthday or work-anniversary")
    return value


def read_message_type(query: dict[str, str]) -> str | None:
    """Return the type that ``type`` selects; None without it.

    Raises:
        InvalidInputError: if it is not the name of a type.
    """
    try:
        return parse_message_type(query["type"]) if "type" in query else None
    except ValueError as error:
        raise InvalidInputError(FieldError("/type", str(error))) from None


def read_period(query: dict[str, str]) -> tuple[datetime | None, datetime | None]:
    """Return the period [``from``, ``to``), with None for a missing bound. A date means that whole day, UTC.

    Raises:
        InvalidInputError: if one is neither a date nor a date-time.
    """
    return _read_instant(query, "from", timedelta()), _read_instant(query, "to", _DAY)


def _read_instant(query: dict[str, str], name: str, end_of_day: timedelta) -> datetime | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        if _DATE.fullmatch(text):
            return _utc(datetime.fromisoformat(f"{text}T00:00:00Z"), end_of_day)
        if match := _INSTANT.fullmatch(text):
            day, time, zulu, sign, offset = match.groups()
            zone = "Z" if zulu else f"{sign.replace(' ', '+')}{offset}"
            return _utc(datetime.fromisoformat(f"{day}T{time}{zone}"), timedelta())
    except ValueError:
        # 30 February, or 25 o'clock.
        pass
    detail = (
        "a date such as 2026-03-01 (all of it, UTC) or an RFC 3339 date-time such as 2026-03-01T09:00:00Z is accepted"
    )
    raise InvalidInputError(FieldError(f"/{name}", detail))


def _utc(instant: datetime, later: timedelta) -> datetime:
    """Return ``instant + later`` in UTC. Beyond the range of ``datetime``, return its first or last instant."""
    try:
        return instant.astimezone(UTC) + later
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if instant.year == 1 else datetime.max.replace(tzinfo=UTC)
