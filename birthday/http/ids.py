"""Reads the id of a user or message from the path of a request."""

import re
from typing import Final
from uuid import UUID

from aiohttp import web

from birthday.errors import NotFoundError
from birthday.http.context import SUBJECT

UUID_PATTERN: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def read_id(request: web.Request, kind: str) -> UUID:
    """Return the id in the path, and note it as the subject of the request.

    Raises:
        NotFoundError: if it is not a UUID, because then nothing can have this id.
    """
    text = request.match_info["id"]
    if not UUID_PATTERN.fullmatch(text):
        raise NotFoundError(f"there is no {kind} with this id: it is not a UUID", f"unknown_{kind}")
    request[SUBJECT] = text.lower()
    return UUID(text)
