"""The address of a client: the one that connected or, if that is a trusted proxy, the one that the proxy names."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from aiohttp import hdrs, web

from birthday.config import Network

UNKNOWN = "unknown"
"""Stands for the address of a client if trusted proxies name an invalid one, or two different ones."""

_FOR = re.compile(r'(?:^|;)\s*for=(?:"([^"]*)"|([^;,"\s]*))', re.IGNORECASE)
_ADDRESS = re.compile(r"\[([^\]]+)\](?::\d+)?|([0-9.]+)(?::\d+)?|([0-9A-Fa-f:.]+)")


def trust_in(networks: Sequence[Network]) -> Callable[[str], bool]:
    """Return a function that says whether an address is in one of ``networks``."""

    @lru_cache(maxsize=1024)
    def is_trusted(address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in networks)

    return is_trusted


def client_address(request: web.Request, is_trusted: Callable[[str], bool]) -> str:
    """Return the address of the client.

    Proxies append, so the last address that is not trusted is the client; the client can forge all addresses before
    it. A proxy may know only one of the two headers, and pass on the other one as the client has written it. So if the
    headers name two different clients, neither counts.
    """
    address = request.remote or UNKNOWN
    if not is_trusted(address):
        return address
    # The ``for`` of each element (RFC 7239); an element without one gives an empty text.
    matches = [_FOR.search(element) for element in _elements(request, hdrs.FORWARDED)]
    forwarded = [(match[1] or match[2] or "") if match else "" for match in matches]
    named = {_last_stranger(hops, is_trusted) for hops in (forwarded, _elements(request, hdrs.X_FORWARDED_FOR)) if hops}
    if not named:
        return address
    return named.pop() if len(named) == 1 else UNKNOWN


def _last_stranger(hops: list[str], is_trusted: Callable[[str], bool]) -> str:
    address = UNKNOWN
    for hop in reversed(hops):
        match = _ADDRESS.fullmatch(hop)
        address = match[1] or match[2] or match[3] if match else ""
        try:
            ipaddress.ip_address(address)
        except ValueError:
            return UNKNOWN
        if not is_trusted(address):
            return address
    # All are trusted proxies, so the first one is the client.
    return address


def _elements(request: web.Request, name: str) -> list[str]:
    return [element.strip() for value in request.headers.getall(name, []) for element in value.split(",")]
