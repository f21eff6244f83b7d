"""The properties of what this program publishes: its name and, if it publishes ahead, when the message is due."""

import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import aiormq
from aiormq.abc import FieldTable

_APP_ID: Final = "birthday"
"""Marks what this program has published. An operator publishes a bare payload."""
_DUE: Final = "due-at-us"
"""The header that says when a message is due: microseconds since 1970, in UTC."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def make_properties(due_at: datetime | None) -> aiormq.spec.Basic.Properties:
    """Return the properties of a persistent message, in aiormq's form."""
    headers: FieldTable | None = {_DUE: (due_at - _EPOCH) // _MICROSECOND} if due_at else None
    return aiormq.spec.Basic.Properties(delivery_mode=2, app_id=_APP_ID, headers=headers)


@lru_cache(maxsize=64)
def encode_properties(due_at: datetime | None) -> bytes:
    """Return the same properties as they are sent. Cached, because a wave is due at one instant."""
    encoded: bytes = make_properties(due_at).marshal()
    return encoded


@lru_cache(maxsize=64)
def decode_properties(properties: bytes) -> tuple[bool, datetime | None]:
    """Say whether the properties name this program, and when the message is due, if they tell.

    Cached, because they are nearly always the same octets.
    """
    decoded = aiormq.spec.Basic.Properties()
    with suppress(ValueError, IndexError, RecursionError, struct.error):
        decoded.unmarshal(int.from_bytes(properties[:2]), properties[2:])
    is_ours = decoded.app_id == _APP_ID
    due = (decoded.headers or {}).get(_DUE) if is_ours else None
    with suppress(OverflowError):
        return is_ours, _EPOCH + due * _MICROSECOND if isinstance(due, int) else None
    return is_ours, None
