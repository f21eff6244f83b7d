"""Cursors: where the next page of a list begins, as text that means nothing to a client.

Any text of the right length is a position, so a cursor stays valid even if its row has changed or is gone.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from pydantic import PlainValidator, WithJsonSchema

from birthday.store import suppressions
from birthday.store.feed import FeedPosition
from birthday.store.history import Message, Position
from birthday.store.suppressions import Suppression

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INSTANT_BYTES: Final = 7  # Microseconds since 1970: enough until the year 4253.
_POSITION_BYTES: Final = 8
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


def user_cursor(last: UUID) -> str:
    """Return the cursor of the page that follows the user with an id."""
    return _encode(last.bytes)


def change_cursor(last: UUID) -> str:
    """Return the cursor of the page that follows the change with an id."""
    return _encode(last.bytes)


def message_cursor(last: Message) -> str:
    """Return the cursor of the page that follows a message."""
    return _encode(_instant_bytes(last.scheduled_at) + last.id.bytes)


def suppression_cursor(last: Suppression) -> str:
    """Return the cursor of the page that follows an entry of the list of suppressed addresses."""
    return _encode(_instant_bytes(last.created_at) + last.address_hash)


def feed_cursor(position: FeedPosition) -> str:
    """Return the cursor of what follows a place in the feed."""
    return _encode(position.position.to_bytes(_POSITION_BYTES, "big", signed=True) + position.id.bytes)


def read_feed_cursor(text: str) -> FeedPosition:
    """Return the place in the feed that a cursor is of.

    Raises:
        ValueError: if it is none.
    """
    packed = _decode(text, _POSITION_BYTES + 16)
    position = int.from_bytes(packed[:_POSITION_BYTES], "big", signed=True)
    return FeedPosition(position, UUID(bytes=packed[_POSITION_BYTES:]))


def _read_user_cursor(text: str) -> UUID:
    return UUID(bytes=_decode(text, 16))


def _read_message_cursor(text: str) -> Position:
    packed = _decode(text, _INSTANT_BYTES + 16)
    return Position(_instant(packed), UUID(bytes=packed[_INSTANT_BYTES:]))


def _read_suppression_cursor(text: str) -> suppressions.Position:
    packed = _decode(text, _INSTANT_BYTES + 32)
    return suppressions.Position(_instant(packed), packed[_INSTANT_BYTES:])


def _instant_bytes(instant: datetime) -> bytes:
    return ((instant - _EPOCH) // _MICROSECOND).to_bytes(_INSTANT_BYTES, "big")


def _instant(packed: bytes) -> datetime:
    return _EPOCH + int.from_bytes(packed[:_INSTANT_BYTES], "big") * _MICROSECOND


def _encode(packed: bytes) -> str:
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def _decode(text: str, size: int) -> bytes:
    if not _BASE64URL.fullmatch(text) or len(text) != _length(size):
        raise ValueError(f"{text[:60]!r} is not a cursor; the nextCursor of an earlier page of this list is accepted")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _length(size: int) -> int:
    """Return how many characters so many bytes take."""
    return -(-size * 4 // 3)


def _schema(size: int) -> WithJsonSchema:
    description = "The `nextCursor` of the page before; without it, the first page."
    return WithJsonSchema(
        {"type": "string", "pattern": f"^[A-Za-z0-9_-]{{{_length(size)}}}$", "description": description}
    )


FEED_PATTERN: Final = f"^[A-Za-z0-9_-]{{{_length(_POSITION_BYTES + 16)}}}$"
ChangeCursor = Annotated[UUID | None, PlainValidator(_read_user_cursor), _schema(16)]
UserCursor = Annotated[UUID | None, PlainValidator(_read_user_cursor), _schema(16)]
MessageCursor = Annotated[Position | None, PlainValidator(_read_message_cursor), _schema(_INSTANT_BYTES + 16)]
SuppressionCursor = Annotated[
    suppressions.Position | None, PlainValidator(_read_suppression_cursor), _schema(_INSTANT_BYTES + 32)
]
