"""Reads the API key of a request from its headers."""

from datetime import datetime

from aiohttp import web

from birthday.operations.keys import Keys, KnownKey


def given_key(request: web.Request) -> str | None:
    """Return what the request carries as its key, valid or not."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key")


def find_key(keys: Keys, request: web.Request, now: datetime) -> KnownKey | None:
    """Return the key that the request carries, if it works."""
    given = given_key(request)
    key = None if given is None else keys.find(given)
    return key if key is not None and key.works(now) else None
