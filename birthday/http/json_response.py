"""An answer in JSON."""

from collections.abc import Mapping

import orjson
from aiohttp import web
from pydantic import BaseModel


def json_response(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer with ``data`` as JSON."""
    return web.Response(body=json_bytes(data), status=status, headers=headers, content_type="application/json")


def json_bytes(data: object) -> bytes:
    """Return ``data``, a model or what JSON knows, as JSON; aware UTC instants are written ``2026-03-01T09:00:00Z``."""
    if isinstance(data, BaseModel):
        return data.model_dump_json(by_alias=True).encode()
    return orjson.dumps(data, default=str, option=orjson.OPT_UTC_Z)
