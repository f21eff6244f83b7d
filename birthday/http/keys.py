"""Reads the API key of a request from its headers, and looks it up among the known keys."""

import hashlib
import hmac
from collections.abc import Sequence

from aiohttp import web

from birthday.config import ApiKey


def find_key(keys: Sequence[ApiKey], request: web.Request) -> ApiKey | None:
    """Return the key that the request carries, if it is one of ``keys``. The time taken does not reveal which."""
    given = given_key(request)
    if given is None:
        return None
    digest = hashlib.sha256(given.encode(errors="surrogateescape")).hexdigest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def given_key(request: web.Request) -> str | None:
    """Return what the request carries as its key, valid or not."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key")
