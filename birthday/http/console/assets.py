"""Style sheet, script and icon. Their names have a hash of their content, so that browsers keep them for a year."""

import hashlib
from functools import cache
from importlib.resources import files
from mimetypes import guess_type
from typing import Final

from aiohttp import hdrs, web

from birthday.http.console.view import ROOT

PATH: Final = f"{ROOT}/static/{{name}}"
_KEEP: Final = "public, max-age=31536000, immutable"
_HASH_DIGITS: Final = 12


def asset(name: str) -> str:
    """Return the address of a file in ``static/``."""
    return PATH.format(name=_hashed_names()[name])


async def serve_asset(request: web.Request) -> web.Response:
    """Answer with a file; one with the hash of another release is the present one, not to be kept."""
    given = request.match_info["name"]
    stem, _, extension = given.rpartition(".")
    name = f"{stem.rpartition('.')[0]}.{extension}"
    hashed = _hashed_names().get(name)
    if hashed is None:
        raise web.HTTPNotFound
    keep = {hdrs.CACHE_CONTROL: _KEEP} if hashed == given else {}
    media_type = guess_type(name)[0] or "application/octet-stream"
    return web.Response(body=_read(name), headers=keep, content_type=media_type, charset="utf-8")


@cache
def _hashed_names() -> dict[str, str]:
    names = {}
    for file in (files(__package__) / "static").iterdir():
        stem, _, extension = file.name.rpartition(".")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:_HASH_DIGITS]
        names[file.name] = f"{stem}.{digest}.{extension}"
    return names


@cache
def _read(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()
