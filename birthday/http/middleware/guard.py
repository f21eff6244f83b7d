"""Decides who may use a resource: checks host name, API key and request rate before the handler runs."""

import time
from collections.abc import Collection
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from birthday.config import Protected, Scope, is_loopback
from birthday.errors import WrongClockError
from birthday.http import kinds
from birthday.http.conditional import answer_condition
from birthday.http.context import CLIENT, PEER, RATE, ApiContext
from birthday.http.keys import given_key
from birthday.http.kinds import KINDS
from birthday.http.limits import client_of
from birthday.http.middleware.client import UNKNOWN
from birthday.http.middleware.problems import problem
from birthday.http.middleware.rates import RateLimit, Windows
from birthday.http.route import Handler
from birthday.operations.keys import KnownKey

log = structlog.get_logger()

WRONG_KEYS: Final = 10
"""How many wrong keys are answered with 401 in a minute, from one address or one IPv6 network of 64 bits."""
WRONG_KEY_SECONDS: Final = 60.0


class Guard:
    """Admits requests according to the keys and ``RATE_LIMIT``. Each process counts for itself."""

    def __init__(self, context: ApiContext) -> None:
        self._keys = context.keys
        self._clock = context.clock
        self._metrics = context.metrics
        self._proxied = bool(context.settings.trusted_proxies)
        self._rate = RateLimit(context.settings.rate_limit) if context.settings.rate_limit else None
        self._wrong_keys = Windows(WRONG_KEY_SECONDS)

    def protect(self, scope: Scope, handler: Handler) -> Handler:
        """Return ``handler``, only for clients with ``scope``. While the clock is wrong, only reads are allowed."""
        changes = scope is not Scope.READ

        async def protected(request: web.Request) -> web.StreamResponse:
            refusal = self._refusal(request, scope)
            if refusal is not None:
                return refusal
            if changes and (fault := self._clock.fault) is not None:
                # A user who counts as created in the future would not be greeted until then.
                raise WrongClockError(fault)
            return answer_condition(request, await handler(request))

        return protected

    def locking(self, protected: Collection[Protected]) -> Middleware:
        """Return the middleware that asks for a key of what PROTECT names. RATE_LIMIT does not count it.

        It does so even where there is no key, because worker and scheduler may listen on outside addresses without one.
        """
        roots = {*protected, *(["openapi.json"] if Protected.DOCS in protected else [])}

        @web.middleware
        async def lock(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            if resource is not None and resource.canonical.split("/")[1] in roots:
                refusal = self._key_refusal(self.peer(request), *self._identify(request), Scope.READ)
                if refusal is not None:
                    return refusal
            return await handler(request)

        return lock

    def _refusal(self, request: web.Request, scope: Scope) -> web.Response | None:
        if self.refuses_host(request):
            return problem(
                kinds.FOREIGN_HOST, "without API keys this API answers to localhost only, not to another name"
            )
        required = self._keys.required
        key, fault = self._identify(request) if required else (None, None)
        if self.exceeds_rate(request, key.name if key and not fault else None):
            limit = self._rate.per_second if self._rate else 0
            # The fields of older drafts, which some clients still look for.
            headers = {"RateLimit-Limit": str(limit), "RateLimit-Remaining": "0", "RateLimit-Reset": "1"}
            return _too_many(f"at most {limit} requests per second are accepted from one client", 1, headers)
        return self._key_refusal(self.peer(request), key, fault, scope) if required else None

    def peer(self, request: web.Request) -> str:
        """Return the address of the client."""
        return request[PEER] if self._proxied else request.remote or UNKNOWN

    def refuses_host(self, request: web.Request) -> bool:
        """Say whether a request came under a foreign host name although no key protects us, and count it."""
        if self._keys.required:
            return False
        peer = self.peer(request)
        if _is_this_machine(request.host) and (not self._proxied or is_loopback(peer)):
            return False
        self._metrics.forbidden_accesses.labels("host").inc()
        log.warning("auth.forbidden", reason="host", peer=peer)
        return True

    def exceeds_rate(self, request: web.Request, name: str | None) -> bool:
        """Count a request, and say whether its client sends more than RATE_LIMIT allows.

        Without the name of a valid key, requests are counted by address, so that nobody can try keys at full speed.
        """
        if self._rate is None:
            return False
        client = f"peer {client_of(self.peer(request))}" if name is None else f"key {name}"
        allowed, request[RATE] = self._rate.count(client, time.monotonic())
        if not allowed:
            self._metrics.rate_limit_hits.inc()
            log.warning("rate_limit.exceeded", client=client)
        return not allowed

    def _identify(self, request: web.Request) -> tuple[KnownKey | None, str | None]:
        """Return the key of a request, if it is known, and what is wrong with it: a reason of ``auth_failures``."""
        given = given_key(request)
        return (None, "no_key") if given is None else self.check_key(request, given)

    def check_key(self, request: web.Request, given: str) -> tuple[KnownKey | None, str | None]:
        """Return the key, if it is known, and what is wrong with it: a reason of ``auth_failures``."""
        key = self._keys.find(given)
        if key is None:
            return None, "unknown_key"
        if not key.works(self._clock.now()):
            return key, "ended_key"
        request[CLIENT] = key.name
        self._keys.note_use(key)
        return key, None

    def _key_refusal(self, peer: str, key: KnownKey | None, fault: str | None, needed: Scope) -> web.Response | None:
        if key is None or fault is not None:
            return self._unknown(peer, key, fault or "unknown_key")
        if not key.scope.includes(needed):
            self._metrics.forbidden_accesses.labels("scope").inc()
            log.warning("auth.forbidden", client=key.name, scope=key.scope.value, needed=needed.value)
            detail = f"this needs a key with the scope {needed}; {key.name} has {key.scope}"
            return problem(kinds.MISSING_SCOPE, detail)
        return None

    def count_refused(self, peer: str, key: KnownKey | None, fault: str) -> int | None:
        """Count and log a refusal. After many unknown keys, return how many seconds the address has to wait.

        Whoever uses a right one from the same address is not held up. A key that has ended was not guessed.
        """
        self._metrics.auth_failures.labels(fault).inc()
        if fault == "unknown_key":
            now = time.monotonic()
            window = self._wrong_keys.count(client_of(peer), now)
            if window.count > WRONG_KEYS:
                self._metrics.rate_limit_hits.inc()
                seconds = window.seconds_left(now)
                if window.count == WRONG_KEYS + 1:
                    log.warning("auth.slowed", peer=peer, seconds=seconds)
                return seconds
        ended = {"client": key.name, "key": key.stored.id} if key and key.stored else {}
        log.warning("auth.failed", reason=fault.replace("_", " "), peer=peer, **ended)
        return None

    def _unknown(self, peer: str, key: KnownKey | None, fault: str) -> web.Response:
        """Answer a request without a valid key."""
        seconds = self.count_refused(peer, key, fault)
        if seconds is not None:
            return _too_many(f"{WRONG_KEYS} wrong API keys came from this address within a minute", seconds)
        challenge = 'Bearer realm="birthday"' + ("" if fault == "no_key" else ', error="invalid_token"')
        detail = {
            "no_key": "an API key is needed: Authorization: Bearer <key>, or X-API-Key",
            "unknown_key": "the API key is not known",
            "ended_key": "the API key was revoked, or has expired",
        }[fault]
        return problem(KINDS[fault], detail, headers={"WWW-Authenticate": challenge})


def _too_many(detail: str, seconds: int, headers: dict[str, str] | None = None) -> web.Response:
    return problem(kinds.RATE_LIMITED, detail, headers={"Retry-After": str(seconds)} | (headers or {}))


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
