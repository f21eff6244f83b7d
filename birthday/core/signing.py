"""Signatures of what we post, as Standard Webhooks 1.0 describes: the receiver can tell who sent it, and when."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = range(16, 65)
"""The specification asks for 24 to 64, and its own example has 18."""


def parse_signing_secrets(text: str) -> tuple[bytes, ...]:
    """Return the keys of one secret, or of two that are separated by a space.

    Raises:
        ValueError: if ``text`` is anything else; the error does not repeat it.
    """
    secrets = text.split()
    keys = tuple(_parse_secret(secret) for secret in secrets)
    if len(keys) not in {1, 2} or not all(len(key) in _KEY_BYTES for key in keys):
        raise ValueError(
            "a secret such as whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw is accepted (base64 of 16 to 64 bytes), or two of "
            "them, separated by a space"
        )
    return keys


def _parse_secret(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return b""
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header ``webhook-signature``: a signature for each key. ``timestamp`` is Unix time."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}" for key in keys)
