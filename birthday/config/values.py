"""The values of settings, parsed and shown: durations, times, rates, roles, networks and keys.

If a value is invalid, its parser raises ``ValueError`` with a text that says what is accepted.
"""

import ipaddress
import re
from dataclasses import dataclass
from datetime import time, timedelta
from enum import StrEnum

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=3650)
_LONGEST_LEAD = timedelta(seconds=30)
_RATE = re.compile(r"(\d+)(?:/s)?")
_ORIGIN = re.compile(
    r"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?"
)
_API_KEY = re.compile(r"([A-Za-z0-9_.-]+):([0-9a-fA-F]{64}):(read|write|admin)")


class Role(StrEnum):
    """What one process may do; any mix is possible."""

    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"


class Scope(StrEnum):
    """What an API key may do: read; read and change users; all of that and handle messages."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, needed: "Scope") -> bool:
        """Say whether a key of this scope may do what needs another: each scope includes the ones before it."""
        scopes = list(Scope)
        return scopes.index(self) >= scopes.index(needed)


class Protected(StrEnum):
    """What is open to everybody unless PROTECT names it."""

    METRICS = "metrics"
    HEALTH = "health"
    DOCS = "docs"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client of the API. Only the client knows the key itself; ``digest`` is the SHA-256 of the key in hex."""

    name: str
    digest: str
    scope: Scope


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_duration(value: object) -> timedelta:
    """Return the duration that a number of seconds or text such as ``500ms``, ``30s``, ``10m``, ``48h`` means."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip().lower())
    if not match:
        raise ValueError("a duration is accepted: seconds as a plain number, or 500ms, 30s, 10m, 48h, 7d")
    seconds = float(match[1]) * _UNIT_SECONDS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"a duration of at most {_LONGEST.days}d is accepted")
    return timedelta(seconds=seconds)


def show_duration(value: timedelta) -> str:
    """Return a duration the way the settings take it: ``48h``, ``10m``, ``2s``, ``500ms``."""
    milliseconds = round(value.total_seconds() * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def positive(value: timedelta) -> timedelta:
    """Return ``value`` if it is greater than 0."""
    if value <= timedelta():
        raise ValueError("a duration greater than 0 is accepted")
    return value


def parse_lead(value: object) -> timedelta:
    """Return a duration of at most 30 s: the janitor takes a message for lost that is untaken for a minute."""
    lead = parse_duration(value)
    if lead > _LONGEST_LEAD:
        raise ValueError(f"a duration of at most {show_duration(_LONGEST_LEAD)} is accepted")
    return lead


def parse_time_of_day(value: object) -> time:
    """Return the time of day that ``HH:MM`` or ``HH:MM:SS`` means."""
    if isinstance(value, time):
        return value
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", str(value).strip())
    if not match:
        raise ValueError("a local time of day is accepted, from 00:00 to 23:59, such as 09:00")
    return time(int(match[1]), int(match[2]), int(match[3] or 0))


def parse_rate(value: object) -> int:
    """Return the number of requests per second that ``50/s`` or ``50`` means."""
    match = _RATE.fullmatch(str(value).strip())
    if not match:
        raise ValueError("requests per second are accepted, such as 50/s, or 0 for no limit")
    return int(match[1])


def parse_roles(value: object) -> frozenset[Role]:
    """Return the roles that a comma-separated list names."""
    if isinstance(value, (set, frozenset)):
        return frozenset(Role(role) for role in value)
    names = [name.strip() for name in str(value).split(",")]
    if not set(names) <= {role.value for role in Role}:
        raise ValueError("a comma-separated list of api, scheduler and worker is accepted")
    return frozenset(Role(name) for name in names)


def parse_protected(value: object) -> tuple[Protected, ...]:
    """Return what a comma-separated list names."""
    if isinstance(value, tuple):
        return value
    names = [name.strip() for name in str(value).lower().split(",")]
    if not set(names) <= {one.value for one in Protected}:
        raise ValueError("a comma-separated list of metrics, health and docs is accepted")
    return tuple(one for one in Protected if one in names)


def role_names(roles: frozenset[Role]) -> str:
    """Return roles as ROLE takes them."""
    return ",".join(role for role in Role if role in roles)


def parse_networks(value: object) -> tuple[Network, ...]:
    """Return the networks that a comma-separated list names."""
    if isinstance(value, tuple):
        return value
    try:
        return tuple(ipaddress.ip_network(entry.strip()) for entry in str(value).split(","))
    except ValueError:
        raise ValueError("comma-separated addresses and networks are accepted, such as 127.0.0.1,10.0.0.0/8") from None


def parse_origins(value: object) -> tuple[str, ...]:
    """Return the origins that a comma-separated list names, as browsers write them in ``Origin``."""
    if isinstance(value, tuple):
        return value
    origins = tuple(entry.strip() for entry in str(value).split(","))
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError(
            "comma-separated origins are accepted as browsers send them, such as https://app.example.com or "
            "http://localhost:5173: in lower case, without path and default port; * is not accepted"
        )
    return origins


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a listener on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def parse_api_keys(value: object) -> tuple[ApiKey, ...]:
    """Return the keys that comma-separated ``name:sha256hex:scope`` entries describe."""
    if isinstance(value, tuple):
        return value
    keys = []
    for entry in str(value).split(","):
        match = _API_KEY.fullmatch(entry.strip())
        if not match:
            # The error does not repeat the entry, because it may be a key in plain text by mistake.
            raise ValueError(
                "comma-separated name:sha256hex:scope entries are accepted, with the SHA-256 of the key as 64 hex "
                "digits and a scope of read, write or admin"
            )
        keys.append(ApiKey(match[1], match[2].lower(), Scope(match[3])))
    return tuple(keys)
