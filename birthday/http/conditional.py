"""Conditional requests (RFC 9110, section 13): ``ETag``, ``If-Match`` and ``If-None-Match``.

A tag is a hash of the body, so equal tags mean equal bytes. What it costs is less than a query for a version would.
"""

from hashlib import blake2b
from typing import Final

from aiohttp import hdrs, web

from birthday.errors import OutdatedError

_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_WEAK: Final = "W/"


def tag_of(body: bytes) -> str:
    """Return the strong entity tag of a body."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def tagged(response: web.Response) -> web.Response:
    """Give the answer to a change the tag that reading the resource gives it."""
    response.headers[hdrs.ETAG] = tag_of(response.body)  # type: ignore[arg-type] # ours are bytes
    return response


def answer_condition(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Give the answer to a successful read its tag, or answer 304 if the client has just that."""
    body = getattr(response, "body", None)
    if request.method not in _READING or response.status != web.HTTPOk.status_code or not isinstance(body, bytes):
        return response
    tag = response.headers[hdrs.ETAG] = tag_of(body)
    known = request.headers.get(hdrs.IF_NONE_MATCH)
    # The comparison is weak, because whoever compresses an answer on its way makes its tag weak.
    if known is None or not _names(known.replace(_WEAK, ""), tag):
        return response
    return web.Response(status=web.HTTPNotModified.status_code, headers={hdrs.ETAG: tag})


def has_condition(request: web.Request) -> bool:
    """Say whether a change depends on what the resource is now."""
    return hdrs.IF_MATCH in request.headers or hdrs.IF_NONE_MATCH in request.headers


def check_condition(request: web.Request, current: bytes | None) -> None:
    """Let a change pass whose condition holds for what the resource is ``current``ly; None if there is none.

    Raises:
        OutdatedError: if it does not hold.
    """
    tag = None if current is None else tag_of(current)
    wanted, unwanted = request.headers.get(hdrs.IF_MATCH), request.headers.get(hdrs.IF_NONE_MATCH)
    if wanted is not None and (tag is None or not _names(wanted, tag)):
        state = "it does not exist" if tag is None else "it has changed since it was read: read it again"
        raise OutdatedError(f"If-Match does not hold: {state}")
    if unwanted is not None and tag is not None and _names(unwanted.replace(_WEAK, ""), tag):
        raise OutdatedError("it exists, so If-None-Match does not hold")


def _names(condition: str, tag: str) -> bool:
    """Say whether a list of tags, or ``*``, includes ``tag``. Tags of ours have no commas."""
    return condition.strip() == "*" or tag in (one.strip() for one in condition.split(","))
