"""Cursors: where the next page of a list begins, as text that means nothing to a client.

Any text of the right length is a position, so a cursor stays valid even if its row has changed or is gone.

A cursor of a list that is ordered by something personal, such as names, hides it by a key of the installation: cursors
are in URLs, and URLs are in logs.
"""

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NamedTuple
from uuid import UUID

from pydantic import PlainValidator, WithJsonSchema

from birthday.core.template import TemplateKey
from birthday.store import keys, suppressions
from birthday.store.feed import FeedPosition
from birthday.store.history import Message, Position
from birthday.store.keys import StoredKey
from birthday.store.listing import Place
from birthday.store.suppressions import Suppression
from birthday.store.templates import MAX_VERSION

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
ID_BYTES: Final = 16
_INSTANT_BYTES: Final = 7  # Microseconds since 1970: enough until the year 4253.
_POSITION_BYTES: Final = 8
_KEY_BYTES: Final = 4
_VERSION_BYTES: Final = 4
_SEPARATOR: Final = "\x1f"
"""Neither in a name nor in a zone."""
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


def user_cursor(last: UUID) -> str:
    """Return the cursor of the page that follows the user with an id."""
    return _encode(last.bytes)


def change_cursor(last: UUID) -> str:
    """Return the cursor of the page that follows the change with an id."""
    return _encode(last.bytes)


class Hidden(NamedTuple):
    """What a cursor hides: a place in a list of an order, and the name that the list is selected by."""

    order: str
    place: Place
    name: str | None


def place_cursor(place: Place, order: str, secret: bytes, name: str | None = None) -> str:
    """Return the cursor of the page that follows a place in a list of an order. ``secret`` hides key and ``name``."""
    hidden = f"{order}{place.key}{_SEPARATOR}{name or ''}".encode()
    # Whole groups of characters, so that a cursor has no spare bits.
    hidden += b"\0" * (-(ID_BYTES + len(hidden)) % 3)
    return _encode(place.id.bytes + _mask(hidden, place.id.bytes, secret))


def read_place(packed: bytes, order: str, secret: bytes) -> Place | None:
    """Return the place of a cursor; None, which is the beginning, if it is of a list of another order."""
    hidden = read_hidden(packed, secret)
    return hidden.place if hidden is not None and hidden.order == order else None


def read_hidden(packed: bytes, secret: bytes) -> Hidden | None:
    """Return what a cursor hides; None if it is not of this installation."""
    user_id = packed[:ID_BYTES]
    shown = _mask(packed[ID_BYTES:], user_id, secret).rstrip(b"\0")
    try:
        key, _, name = shown.decode().partition(_SEPARATOR)
    except UnicodeDecodeError:
        return None
    return None if b"\0" in shown else Hidden(key[:1], Place(key[1:], UUID(bytes=user_id)), name or None)


def _mask(key: bytes, user_id: bytes, secret: bytes) -> bytes:
    """Hide a key, or show a hidden one: the exclusive or with a stream that depends on the id."""
    stream = hashlib.shake_256(secret + user_id).digest(len(key))
    return bytes(one ^ other for one, other in zip(key, stream, strict=True))


def message_cursor(last: Message | Position) -> str:
    """Return the cursor of the page that follows a message."""
    return _encode(_instant_bytes(last.scheduled_at) + last.id.bytes)


def suppression_cursor(last: Suppression) -> str:
    """Return the cursor of the page that follows an entry of the list of suppressed addresses."""
    return _encode(_instant_bytes(last.created_at) + last.address_hash)


def key_cursor(last: StoredKey) -> str:
    """Return the cursor of the page that follows an API key."""
    return _encode(_instant_bytes(last.created_at) + bytes.fromhex(last.id))


def template_cursor(last: TemplateKey) -> str:
    """Return the cursor of the page that follows a template in the list of all."""
    place = f"{last.message_type} {last.locale}".encode()
    return _encode(place + b" " * (-len(place) % 3))


def version_cursor(last: TemplateKey) -> str:
    """Return the cursor of the page that follows a version of a template."""
    return _encode(last.version.to_bytes(_VERSION_BYTES, "big"))


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


def _read_change_cursor(text: str) -> UUID:
    return UUID(bytes=_decode(text, 16))


def read_user_cursor(text: str) -> bytes:
    """Return the bytes of a cursor of a list of users; the first 16 are those of an id.

    Raises:
        ValueError: if it is none.
    """
    if not re.fullmatch(_USER_CURSOR, text):
        raise ValueError(NO_CURSOR)
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _read_place_cursor(text: str) -> bytes:
    if not re.fullmatch(_PLACE_CURSOR, text):
        raise ValueError(NO_CURSOR)
    return urlsafe_b64decode(text)


def read_message_cursor(text: str) -> Position:
    """Return the position in a list of messages that a cursor is of.

    Raises:
        ValueError: if it is none.
    """
    packed = _decode(text, _INSTANT_BYTES + 16)
    return Position(_instant(packed), UUID(bytes=packed[_INSTANT_BYTES:]))


def _read_suppression_cursor(text: str) -> suppressions.Position:
    packed = _decode(text, _INSTANT_BYTES + 32)
    return suppressions.Position(_instant(packed), packed[_INSTANT_BYTES:])


def _read_key_cursor(text: str) -> keys.Position:
    packed = _decode(text, _INSTANT_BYTES + _KEY_BYTES)
    return keys.Position(_instant(packed), packed[_INSTANT_BYTES:].hex())


def _read_template_cursor(text: str) -> tuple[str, str]:
    if not re.fullmatch(_TEMPLATE_CURSOR, text):
        raise ValueError(NO_CURSOR)
    message_type, _, locale = urlsafe_b64decode(text).decode(errors="replace").partition(" ")
    return message_type, locale.strip()


def _read_version_cursor(text: str) -> int:
    return min(int.from_bytes(_decode(text, _VERSION_BYTES), "big"), MAX_VERSION)


def _instant_bytes(instant: datetime) -> bytes:
    return ((instant - _EPOCH) // _MICROSECOND).to_bytes(_INSTANT_BYTES, "big")


def _instant(packed: bytes) -> datetime:
    return _EPOCH + int.from_bytes(packed[:_INSTANT_BYTES], "big") * _MICROSECOND


def _encode(packed: bytes) -> str:
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def _decode(text: str, size: int) -> bytes:
    if not _BASE64URL.fullmatch(text) or len(text) != _length(size):
        raise ValueError(NO_CURSOR)
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


NO_CURSOR: Final = "is not a cursor; the nextCursor of an earlier page of this list is accepted"


def _length(size: int) -> int:
    """Return how many characters so many bytes take."""
    return -(-size * 4 // 3)


def _schema(pattern: str) -> WithJsonSchema:
    description = "The `nextCursor` of the page before; without it, the first page."
    return WithJsonSchema({"type": "string", "pattern": pattern, "description": description})


def _schema_of(size: int) -> WithJsonSchema:
    return _schema(f"^[A-Za-z0-9_-]{{{_length(size)}}}$")


FEED_PATTERN: Final = f"^[A-Za-z0-9_-]{{{_length(_POSITION_BYTES + 16)}}}$"
# The key of a place, and the name that a list is selected by, have at most 200 characters each.
_PLACE_CURSOR: Final = "^([A-Za-z0-9_-]{4}){6,550}$"
_USER_CURSOR: Final = f"^[A-Za-z0-9_-]{{22}}$|{_PLACE_CURSOR}"

# A type has at most 40 characters, a locale 35.
_TEMPLATE_CURSOR: Final = "^([A-Za-z0-9_-]{4}){1,26}$"

ChangeCursor = Annotated[UUID | None, PlainValidator(_read_change_cursor), _schema_of(16)]
UserCursor = Annotated[bytes | None, PlainValidator(read_user_cursor), _schema(_USER_CURSOR)]
"""The bytes of a cursor; the first 16 are those of an id."""
PlaceCursor = Annotated[bytes | None, PlainValidator(_read_place_cursor), _schema(_PLACE_CURSOR)]
MessageCursor = Annotated[Position | None, PlainValidator(read_message_cursor), _schema_of(_INSTANT_BYTES + 16)]
SuppressionCursor = Annotated[
    suppressions.Position | None, PlainValidator(_read_suppression_cursor), _schema_of(_INSTANT_BYTES + 32)
]
KeyCursor = Annotated[keys.Position | None, PlainValidator(_read_key_cursor), _schema_of(_INSTANT_BYTES + _KEY_BYTES)]
TemplateCursor = Annotated[tuple[str, str] | None, PlainValidator(_read_template_cursor), _schema(_TEMPLATE_CURSOR)]
"""Type and locale."""
VersionCursor = Annotated[int | None, PlainValidator(_read_version_cursor), _schema_of(_VERSION_BYTES)]
