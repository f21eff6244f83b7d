"""URLs as settings have them: what in them would be lost or misread without a word is refused."""

import re
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl

ENCODING: Final = (
    "a special character in a user or password is accepted percent-encoded: / as %2F, ? as %3F, # as %23, @ as %40, "
    ": as %3A, [ as %5B, ] as %5D, % as %25"
)
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

_TLS: Final = {
    "cacertfile": "cafile",
    "cafile": "cafile",
    "certfile": "certfile",
    "keyfile": "keyfile",
}
"""Parameters of RabbitMQ's URLs, and of aiormq's, that are files of TLS: each by the name that aiormq knows."""
_VERIFY: Final = {("verify", "verify_peer"): "0", ("verify", "verify_none"): "1"} | {
    ("no_verify_ssl", value): value for value in "01"
}
_ACCEPTED: Final = "cacertfile, certfile, keyfile, verify (verify_peer or verify_none), heartbeat and name are accepted"


def misplaced_at(parts: SplitResult, *, in_path: bool) -> bool:
    """Say whether an @ stands where no user can be: a raw / ? or # in a password has ended the authority before it.

    ``in_path`` says whether the path has none by right.
    """
    rest = parts.fragment + parts.query.partition("=")[0]
    return "@" not in parts.netloc and "@" in (parts.path + rest if in_path else rest)


def check_escapes(parts: SplitResult) -> None:
    """Refuse a % in the user or password that encodes nothing.

    Raises:
        ValueError: if there is one; the text says what is accepted.
    """
    if _BROKEN_ESCAPE.search(parts.netloc.rpartition("@")[0]):
        raise ValueError(ENCODING)


def amqp_parameters(parts: SplitResult) -> dict[str, str]:
    """Return the query of an AMQP URL by the names that aiormq knows; RabbitMQ's own are understood as well.

    Raises:
        ValueError: if there is one that would be ignored, or a value that is not understood.
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


def check_amqp_files(parameters: Mapping[str, str]) -> None:
    """Read the files of TLS that an AMQP URL names, as connecting will.

    Raises:
        ValueError: if one cannot be read, or is not what its name says.
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
