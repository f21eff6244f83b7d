"""DATABASE_URL as providers write it: the parameters of its query are obeyed, ignored or refused.

The known parameters are those of libpq and some that other programs add. asyncpg knows only some of them. It would ask
the server to set any other one for the session.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from birthday.config.splitting import split_url

_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_CHOICES: Final = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer"),
    "gsslib": ("gssapi", "sspi"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "client_encoding": ("UTF8", "utf8", "UTF-8", "utf-8", "auto"),
    "keepalives": ("0", "1"),
    "sslcompression": ("0", "1"),
    "sslsni": ("0", "1"),
    "load_balance_hosts": ("disable", "random"),
}
"""The accepted values of parameters that have only a few."""
_NUMBERS: Final = frozenset(
    {"connect_timeout", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout"}
)
_IGNORED: Final = frozenset(
    {
        # Of libpq. ``store/tcp.py`` sets the time limits of TCP.
        "channel_binding",
        "gssdelegation",
        "gssencmode",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "require_auth",
        "requirepeer",
        "requiressl",
        "scram_client_key",
        "scram_server_key",
        "sslcertmode",
        "sslcompression",
        "sslcrldir",
        "sslkeylogfile",
        "sslsni",
        "tcp_user_timeout",
        # Of Prisma, Rails, Supabase and others, for their own client or pool.
        "connection_limit",
        "pgbouncer",
        "pool",
        "pool_timeout",
        "pool_mode",
        "prepared_statements",
        "prepareThreshold",
        "schema",
        "socket_timeout",
        "sslaccept",
        "supa",
        "uselibpqcompat",
        "workaround",
    }
)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>/[^:]*|[^:\[\]/]+))(?::(?P<port>[0-9]{1,5})?)?")
_WHOLE: Final = re.compile(r"-?[0-9]{1,9}")
_WITHOUT_A_WORD: Final = frozenset({"client_encoding", "gssencmode"})
"""Dropped without a warning, because each accepted value holds anyway: UTF8 is always used, GSSAPI encryption never."""
_SHORTEST_CONNECT_SECONDS: Final = 2
"""The same minimum as in libpq, which counts whole seconds: a limit of one second could end almost at once."""


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """The parts of a DATABASE_URL. ``dsn`` is for asyncpg; ``connect_seconds`` is None if the URL sets no limit.

    ``hosts`` is empty unless the URL names several; then the ``dsn`` names none, and is used with each of them.
    """

    dsn: str
    hosts: tuple[tuple[str, int | None], ...]
    application_name: str | None
    connect_seconds: int | None
    ignored: tuple[str, ...]


def read_database_url(url: str) -> DatabaseUrl:
    """Read a DATABASE_URL, and check the parameters of its query.

    Raises:
        ValueError: if the query cannot be read, or a known parameter has a wrong value; the text has name and value.
    """
    parts = split_url(url)
    try:
        given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ValueError("a query of name=value pairs, separated by &, is accepted") from None
    for name, value in given.items():
        _check(name, value)
    ignored = tuple(sorted(given.keys() & _IGNORED - _WITHOUT_A_WORD))
    taken = {"application_name", "connect_timeout", "fallback_application_name"}
    kept = {name: value for name, value in given.items() if name not in _IGNORED | _WITHOUT_A_WORD | taken}
    user, at, authority = parts.netloc.rpartition("@")
    hosts = _several_hosts(authority, given)
    dsn = url.partition("?")[0]
    if hosts:
        dsn = dsn.replace(parts.netloc, user + at, 1) if parts.netloc else dsn
        kept = {"target_session_attrs": "read-write"} | {
            name: value for name, value in kept.items() if name not in {"host", "port"}
        }
    authorities = ssl.get_default_verify_paths().cafile
    if kept.get("sslrootcert") == "system" and authorities:
        kept["sslrootcert"] = authorities
    seconds = int(given.get("connect_timeout", 0))
    return DatabaseUrl(
        # Not geturl(), which loses the empty host of postgresql:///name.
        f"{dsn}?{urlencode(kept, quote_via=quote)}" if kept else dsn,
        hosts,
        given.get("application_name") or given.get("fallback_application_name"),
        max(seconds, _SHORTEST_CONNECT_SECONDS) if seconds > 0 else None,
        ignored,
    )


def _several_hosts(authority: str, given: Mapping[str, str]) -> tuple[tuple[str, int | None], ...]:
    """Return the hosts of a URL that names several, otherwise none. They are in its authority, or in its query."""
    listed = [unquote(host) for host in authority.split(",")] if authority else given.get("host", "").split(",")
    if len(listed) == 1:
        return ()
    matches = [_HOST.fullmatch(host) for host in listed]
    ports = given.get("port", "").split(",") if not authority else [""]
    if None in matches:
        raise ValueError("several hosts are accepted as host1:5432,host2:5432, each with a name or an address")
    if len(ports) not in {1, len(listed)}:
        raise ValueError(f"its parameter port has {len(ports)} ports for {len(listed)} hosts: one for each is accepted")
    ports = ports if len(ports) > 1 else ports * len(listed)
    return tuple(
        (match["v6"] or match["host"], int(port or match["port"] or 0) or None)
        for match, port in zip(matches, ports, strict=True)
        if match
    )


def _check(name: str, value: str) -> None:
    choices = _CHOICES.get(name)
    if choices is not None and value not in choices:
        raise ValueError(f"its parameter {name}='{value}' is wrong: {' or '.join(choices)} is accepted")
    if name in _NUMBERS and not _WHOLE.fullmatch(value):
        raise ValueError(f"its parameter {name}='{value}' is wrong: a whole number is accepted")
