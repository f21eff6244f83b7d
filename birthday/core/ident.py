"""Ids that the program makes: UUIDs that sort by the instant of creation."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def uuid7(at: datetime) -> UUID:
    """Return a UUID version 7 for an instant (RFC 9562, section 5.7).

    The twelve bits after the version hold the microseconds (section 6.2, method 3), so that ids of one host sort by
    creation within a millisecond too. The other 62 bits are random, but not secret.
    """
    milliseconds, microseconds = divmod((at - _EPOCH) // _MICROSECOND, 1000)
    fraction = microseconds * 4096 // 1000
    noise = random.getrandbits(62)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | noise)


def first_uuid7(at: datetime) -> UUID:
    """Return a UUID before which come the ids of all earlier milliseconds, and after which those of all later ones."""
    return UUID(int=max(0, (at - _EPOCH) // timedelta(milliseconds=1)) << 80)
