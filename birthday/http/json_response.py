"""An answer in JSON."""

from collections.abc import Mapping

import orjson
from aiohttp import web


def json_response(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer with ``data`` as JSON."""
    return web.Response(body=json_bytes(data), status=status, headers=headers, content_type="application/json")


def json_bytes(data: object) -> bytes:
    """Return ``data`` as JSON; aware UTC instants are written ``2026-03-01T09:00:00Z``."""
    return orjson.dumps(data, default=str, option=orjson.OPT_UTC_Z)
