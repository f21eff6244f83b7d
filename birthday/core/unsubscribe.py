"""Unsubscribe links: signed, so that nobody can make one, and without personal data that could be read.

A token is the id of the user, a salted hash of the address that the greeting went to, and a signature. It does not
expire. The hash is that of the list of suppressed addresses, so a link works when its user has been removed.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

_ID_BYTES: Final = 16
_HASH_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 12
# Their sum is a multiple of three, so a token has no padding and no spare bits.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{80}")


@dataclass(frozen=True, slots=True)
class Unsubscriber:
    """What a link names: the user, and the hash of the address."""

    user_id: UUID
    address_hash: bytes


@dataclass(frozen=True, slots=True)
class Links:
    """Makes and reads the tokens of one installation, with the secrets that its database keeps."""

    address_salt: bytes = field(repr=False)
    key: bytes = field(repr=False)

    def make_token(self, user_id: UUID, email: str) -> str:
        """Return the token for a user and the address that a greeting goes to, as it is stored."""
        address_hash = hashlib.sha256(self.address_salt + email.lower().encode()).digest()
        named = user_id.bytes + address_hash
        return urlsafe_b64encode(named + self._sign(named)).decode()

    def read_token(self, token: str) -> Unsubscriber | None:
        """Return what a token names; None if this installation has not made it."""
        if not _TOKEN.fullmatch(token):
            return None
        packed = urlsafe_b64decode(token)
        named, signature = packed[:-_SIGNATURE_BYTES], packed[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(named)):
            return None
        return Unsubscriber(UUID(bytes=named[:_ID_BYTES]), named[_ID_BYTES:])

    def _sign(self, named: bytes) -> bytes:
        return hmac.digest(self.key, named, "sha256")[:_SIGNATURE_BYTES]
