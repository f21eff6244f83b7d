"""Decides who may use a resource: checks host name, API key and request rate before the handler runs."""

import math
import time
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from birthday.config import ApiKey, Scope, Settings, is_loopback
from birthday.errors import WrongClockError
from birthday.http.conditional import answer_condition
from birthday.http.context import CLIENT, CONTEXT, PEER
from birthday.http.keys import find_key, given_key
from birthday.http.middleware.client import UNKNOWN
from birthday.http.middleware.problems import Handler, problem

log = structlog.get_logger()

_SCOPES = (Scope.READ, Scope.WRITE, Scope.ADMIN)
"""Each scope includes the ones before it."""


class Guard:
    """Admits requests to resources according to ``API_KEYS`` and ``RATE_LIMIT``. Each process counts for itself."""

    def __init__(self, settings: Settings) -> None:
        self._keys = settings.api_keys
        self._proxied = bool(settings.trusted_proxies)
        self._rate = RateLimit(settings.rate_limit) if settings.rate_limit else None

    def protect(self, scope: Scope, handler: Handler) -> Handler:
        """Return ``handler``, only for clients with ``scope``. While the clock is wrong, only reads are allowed."""

        async def protected(request: web.Request) -> web.StreamResponse:
            refusal = await self._refusal(request, scope)
            if refusal is not None:
                return refusal
            fault = request.app[CONTEXT].clock.fault
            if fault is not None and scope is not Scope.READ:
                # A user who counts as created in the future would not be greeted until then.
                raise WrongClockError(fault)
            return answer_condition(request, await handler(request))

        return protected

    async def _refusal(self, request: web.Request, scope: Scope) -> web.Response | None:
        peer = request[PEER] if self._proxied else request.remote or UNKNOWN
        if not self._keys and not (_is_this_machine(request.host) and (not self._proxied or is_loopback(peer))):
            request.app[CONTEXT].metrics.forbidden_accesses.labels("host").inc()
            log.warning("auth.forbidden", reason="host", peer=peer)
            return problem(
                HTTPStatus.FORBIDDEN, "without API_KEYS the API answers to localhost only, not to another name"
            )
        key = find_key(self._keys, request) if self._keys else None
        if key:
            request[CLIENT] = key.name
        if self._rate:
            # Without a valid key, requests are counted by address, so that nobody can try keys at full speed.
            client = f"key {key.name}" if key else f"peer {peer}"
            refusal = await self._rate.refusal(client)
            if refusal:
                request.app[CONTEXT].metrics.rate_limit_hits.inc()
                log.warning("rate_limit.exceeded", client=client)
                return refusal
        return _key_refusal(request, peer, key, scope) if self._keys else None


class RateLimit:
    """Counts requests per client within a second. After that second, the count of a client is forgotten."""

    def __init__(self, per_second: int) -> None:
        """Allow each client ``per_second`` requests in a window of one second, which its first request opens."""
        self._item = RateLimitItemPerSecond(per_second)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def refusal(self, client: str) -> web.Response | None:
        """Count a request. Return the answer if it exceeds the limit, None otherwise."""
        if await self._limiter.hit(self._item, client):
            return None
        window = await self._limiter.get_window_stats(self._item, client)
        seconds = str(max(1, math.ceil(window.reset_time - time.time())))
        headers = {
            "Retry-After": seconds,
            "RateLimit-Limit": str(self._item.amount),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": seconds,
        }
        detail = f"at most {self._item.amount} requests per second are accepted from one client"
        return problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers=headers)


def _key_refusal(request: web.Request, peer: str, key: ApiKey | None, needed: Scope) -> web.Response | None:
    metrics = request.app[CONTEXT].metrics
    if key is None:
        given = given_key(request) is not None
        metrics.auth_failures.labels("unknown_key" if given else "no_key").inc()
        log.warning("auth.failed", reason="unknown key" if given else "no key", peer=peer)
        challenge = 'Bearer realm="birthday", error="invalid_token"' if given else 'Bearer realm="birthday"'
        detail = (
            "the API key is not known" if given else "an API key is needed: Authorization: Bearer <key>, or X-API-Key"
        )
        return problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})
    if _SCOPES.index(key.scope) < _SCOPES.index(needed):
        metrics.forbidden_accesses.labels("scope").inc()
        log.warning("auth.forbidden", client=key.name, scope=key.scope.value, needed=needed.value)
        return problem(HTTPStatus.FORBIDDEN, f"this needs a key with the scope {needed}; {key.name} has {key.scope}")
    return None


@lru_cache(maxsize=128)
def _is_this_machine(authority: str) -> bool:
    """Say whether a Host is a loopback name of this machine.

    A page on the web can make a browser send requests here under the page's own name (DNS rebinding).
    """
    try:
        host = urlsplit(f"//{authority}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)
