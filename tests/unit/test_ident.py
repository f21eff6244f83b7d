"""UUIDs of users."""

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122

from birthday.core.ident import uuid7

NOW = datetime(2026, 3, 1, 9, 30, 15, 123_456, tzinfo=UTC)


def test_an_id_is_a_uuid_of_version_7() -> None:
    """Version and variant stand where RFC 9562 wants them."""
    one = uuid7(NOW)
    assert one.version == 7
    assert one.variant == RFC_4122


def test_an_id_tells_the_millisecond() -> None:
    """The first 48 bits are Unix milliseconds, as in the example of RFC 9562, appendix A.6."""
    assert uuid7(NOW).int >> 80 == int(NOW.timestamp() * 1000)
    example = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    assert str(uuid7(example)).startswith("017f22e2-79b0-7")


def test_ids_sort_by_creation_to_the_microsecond() -> None:
    """Later ids are greater, within one millisecond as well."""
    ids = [uuid7(NOW + timedelta(microseconds=number)) for number in range(3000)]
    assert ids == sorted(ids)


def test_ids_of_one_instant_differ() -> None:
    """A clock that stands still makes no duplicates."""
    assert len({uuid7(NOW) for _ in range(1000)}) == 1000
