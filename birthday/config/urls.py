"""URLs in settings. A URL is refused if a part of it would silently be ignored or misread."""

import re
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlunsplit

from birthday.config.dsn import read_database_url
from birthday.config.splitting import split_url

_ENCODING: Final = (
    "a special character in a user or password is accepted percent-encoded: / as %2F, ? as %3F, # as %23, @ as %40, "
    ": as %3A, [ as %5B, ] as %5D, % as %25"
)
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST: Final = re.compile(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::(\d*))?")
_PORTS: Final = range(1, 65536)
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_LONGEST_NAME: Final = 20
"""A longer segment of a path is probably an id or a token, as in the URLs of incoming webhooks."""

_TLS: Final = {"cacertfile": "cafile", "cafile": "cafile", "certfile": "certfile", "keyfile": "keyfile"}
"""Parameters that name TLS files, as RabbitMQ or aiormq call them, each with aiormq's name."""
_VERIFY: Final = {("verify", "verify_peer"): "0", ("verify", "verify_none"): "1"} | {
    ("no_verify_ssl", value): value for value in "01"
}
_NODES: Final = "amqp://user:password@one:5672,two:5672/vhost"
_ACCEPTED: Final = "cacertfile, certfile, keyfile, verify (verify_peer or verify_none), heartbeat and name are accepted"


def mask_url(url: str) -> str:
    """Return a URL without its password and query, fit for a log line."""
    parts = split_url(url)
    if "@" in parts.path + parts.query + parts.fragment:
        # A raw / ? or # in the password has ended the authority early, so the rest may be a part of the password.
        return f"{parts.scheme}://***"
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}:***@" if parts.password else f"{parts.username}@" if parts.username else ""
    return urlunsplit((parts.scheme, f"{user}{host}", parts.path, "", ""))


def mask_path(path: str) -> str:
    """Return a path without its query and segments that may be secret, fit for a log line."""
    segments = path.partition("?")[0].split("/")
    return "/".join(segment if len(segment) <= _LONGEST_NAME else "***" for segment in segments)


def check_path(path: str) -> None:
    """Refuse a path that no request line can have.

    Raises:
        ValueError: if it is invalid.
    """
    if not _PATH.fullmatch(path):
        raise ValueError("a path such as /send is accepted, with special characters percent-encoded")


def check_database_url(url: str) -> None:
    """Refuse an invalid DATABASE_URL. It may name several hosts or none, and others in its query.

    Raises:
        ValueError: if it is invalid; the text says what is accepted. The same holds for every function here.
    """
    _check_url(url, ("postgresql", "postgres"), 5432, several=True)
    read_database_url(url)


def check_amqp_url(url: str) -> None:
    """Refuse a RABBITMQ_URL that is invalid, or names TLS files that cannot be used. It may name several nodes."""
    parts = _split(url)
    credentials = "" if parts is None else parts.netloc.rpartition("@")[0]
    if parts is not None and ("://" in parts.path or ("@" in credentials and "," in credentials)):
        raise ValueError(f"one URL with several hosts is accepted, such as {_NODES}; {_ENCODING}")
    for each in amqp_urls(url):
        _check_amqp_files(amqp_parameters(_check_url(each, ("amqp", "amqps"), 5672)))


def amqp_urls(url: str) -> list[str]:
    """Return the URL of each node that an AMQP URL names: its hosts are separated by commas."""
    parts = _split(url)
    if parts is None:
        return [url]
    user, at, hosts = parts.netloc.rpartition("@")
    return [url.replace(parts.netloc, f"{user}{at}{host}", 1) for host in hosts.split(",")]


def check_service_url(url: str) -> None:
    """Refuse an invalid MESSAGE_SERVICE_URL. Its path may contain an @."""
    _check_url(url, ("http", "https"), 8080, at_in_path=True)


def check_smtp_url(url: str) -> None:
    """Refuse an invalid SMTP_URL, whatever its query says."""
    if _check_url(url, ("smtp", "smtps"), 587).path.strip("/"):
        raise ValueError("a URL without a path is accepted, such as smtp://localhost:587")


def check_public_url(url: str) -> None:
    """Refuse an invalid PUBLIC_URL. Paths are appended to it, so it has no query; it is shown to the world."""
    parts = _check_url(url, ("http", "https"), 443)
    if parts.query or url.endswith("?") or "@" in parts.netloc:
        raise ValueError("a URL without user and query is accepted, such as https://greetings.example.com")


def check_proxy_url(url: str) -> str:
    """Return the URL of an HTTP proxy. If it has no scheme, http:// is added."""
    url = url if "://" in url else f"http://{url}"
    parts = _split(url)
    if parts is None or parts.scheme != "http" or not parts.hostname or not _has_valid_ports(parts):
        raise ValueError("the URL of an HTTP proxy is accepted, such as http://proxy.example.com:3128")
    return url


def _check_url(
    url: str, schemes: tuple[str, str], port: int, *, several: bool = False, at_in_path: bool = False
) -> SplitResult:
    parts = _split(url)
    if parts is None or parts.scheme not in schemes:
        hint = f"; {_ENCODING}" if parts is None and "@" in url else ""
        raise ValueError(f"a URL that starts with {schemes[0]}:// is accepted{hint}")
    valid_ports = _has_valid_ports(parts, several=several)
    # The driver of PostgreSQL ends the password at the first @, others at the last.
    if (several and parts.netloc.count("@") > 1) or _misplaced_at(parts, in_path=not (at_in_path and valid_ports)):
        raise ValueError(f"a URL with user, password and host is accepted; {_ENCODING}")
    if not valid_ports:
        raise ValueError(f"a URL with a port from 1 to 65535 is accepted, such as {schemes[0]}://localhost:{port}")
    if not several and not parts.hostname:
        raise ValueError(f"a URL with a host is accepted, such as {schemes[0]}://localhost")
    if _BROKEN_ESCAPE.search(parts.netloc.rpartition("@")[0]):
        raise ValueError(_ENCODING)
    if parts.fragment or url.endswith("#"):
        raise ValueError("a URL without # is accepted: what follows would be ignored; %23 is a # in a name")
    return parts


def _split(url: str) -> SplitResult | None:
    """Return the parts of a URL, None if it cannot be read."""
    try:
        return split_url(url)
    except ValueError:
        return None


def _has_valid_ports(parts: SplitResult, *, several: bool = False) -> bool:
    """Say whether each port of a URL is valid. A DSN of PostgreSQL may have ``several``, also in its query."""
    authority = parts.netloc.rpartition("@")[2]
    hosts = authority.split(",") if several else [authority]
    matches = [_HOST.fullmatch(host) for host in hosts]
    ports = [match[1] for match in matches if match and match[1]]
    if several:
        ports += [port for value in parse_qs(parts.query).get("port", []) for port in value.split(",")]
    return None not in matches and all(port.isdecimal() and int(port) in _PORTS for port in ports)


def _misplaced_at(parts: SplitResult, *, in_path: bool) -> bool:
    """Say whether an @ stands after the authority: then a raw / ? or # in a password has ended the authority early.

    ``in_path`` says whether an @ in the path counts as misplaced, too.
    """
    rest = parts.fragment + parts.query.partition("=")[0]
    return "@" not in parts.netloc and "@" in (parts.path + rest if in_path else rest)


def amqp_parameters(parts: SplitResult) -> dict[str, str]:
    """Return the query parameters of an AMQP URL under aiormq's names. RabbitMQ's names are accepted, too.

    Raises:
        ValueError: if a parameter is unknown or has no effect with this URL, or its value is invalid.
    """
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _TLS or name in {"verify", "no_verify_ssl"}:
            if parts.scheme != "amqps":
                raise ValueError(f"'{name}' is for TLS: a URL that starts with amqps:// is accepted with it")
            if name in _TLS:
                found[_TLS[name]] = value
                continue
            if (name, value) not in _VERIFY:
                raise ValueError("'verify' is verify_peer or verify_none")
            found["no_verify_ssl"] = _VERIFY[name, value]
        elif name == "heartbeat":
            if not value.isdecimal():
                raise ValueError("'heartbeat' is a whole number of seconds")
            found[name] = value
        elif name == "name":
            found[name] = value
        else:
            shown = "".join(one if one.isprintable() else "?" for one in name)
            raise ValueError(f"the parameter '{shown[:40]}' is not known: {_ACCEPTED}")
    return found


def _check_amqp_files(parameters: Mapping[str, str]) -> None:
    """Check that the TLS files of an AMQP URL can be loaded when connecting.

    Raises:
        ValueError: if a file cannot be read, or does not contain what its parameter says.
    """
    try:
        context = ssl.create_default_context(cafile=parameters.get("cafile"))
    except OSError as error:
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"'cacertfile' is a PEM file of certificate authorities: {why}") from None
    if "keyfile" in parameters and "certfile" not in parameters:
        raise ValueError("'keyfile' is accepted together with 'certfile'")
    if "certfile" not in parameters:
        return
    try:
        context.load_cert_chain(parameters["certfile"], parameters.get("keyfile"), password=lambda: b"")
    except OSError as error:
        unfit = "they do not fit together, or are no PEM files without a password"
        why = unfit if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"'certfile' and 'keyfile' are PEM files of a certificate and its key: {why}") from None
