"""Cursors: where the next page of a list begins, as text that means nothing to a client.

Any text of the right length is a position, so a cursor stays valid even if its row has changed or is gone.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from uuid import UUID

from birthday.errors import FieldError, InvalidInputError
from birthday.store import suppressions
from birthday.store.history import Message, Position
from birthday.store.suppressions import Suppression

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INSTANT_BYTES = 7  # Microseconds since 1970: enough until the year 4253.
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


def user_cursor(last: UUID) -> str:
    """Return the cursor of the page that follows the user with an id."""
    return _encode(last.bytes)


def read_user_cursor(query: dict[str, str]) -> UUID | None:
    """Return the id after which the page begins; None for the first page.

    Raises:
        InvalidInputError: if ``cursor`` is not one of this list.
    """
    packed = _decode(query, 16)
    return UUID(bytes=packed) if packed else None


def message_cursor(last: Message) -> str:
    """Return the cursor of the page that follows a message."""
    return _encode(_instant_bytes(last.scheduled_at) + last.id.bytes)


def read_message_cursor(query: dict[str, str]) -> Position | None:
    """Return the position after which the page begins; None for the first page.

    Raises:
        InvalidInputError: if ``cursor`` is not one of this list.
    """
    packed = _decode(query, _INSTANT_BYTES + 16)
    return Position(_instant(packed), UUID(bytes=packed[_INSTANT_BYTES:])) if packed else None


def suppression_cursor(last: Suppression) -> str:
    """Return the cursor of the page that follows an entry of the list of suppressed addresses."""
    return _encode(_instant_bytes(last.created_at) + last.address_hash)


def read_suppression_cursor(query: dict[str, str]) -> suppressions.Position | None:
    """Return the position after which the page begins; None for the first page.

    Raises:
        InvalidInputError: if ``cursor`` is not one of this list.
    """
    packed = _decode(query, _INSTANT_BYTES + 32)
    return suppressions.Position(_instant(packed), packed[_INSTANT_BYTES:]) if packed else None


def _instant_bytes(instant: datetime) -> bytes:
    return ((instant - _EPOCH) // _MICROSECOND).to_bytes(_INSTANT_BYTES, "big")


def _instant(packed: bytes) -> datetime:
    return _EPOCH + int.from_bytes(packed[:_INSTANT_BYTES], "big") * _MICROSECOND


def _encode(packed: bytes) -> str:
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def _decode(query: dict[str, str], size: int) -> bytes | None:
    text = query.get("cursor")
    if text is None:
        return None
    if not _BASE64URL.fullmatch(text) or len(text) != -(-size * 4 // 3):
        detail = f"{text[:60]!r} is not a cursor; the nextCursor of an earlier page of this list is accepted"
        raise InvalidInputError(FieldError("/cursor", detail))
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
