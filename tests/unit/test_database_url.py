"""A DATABASE_URL with several hosts is read as libpq reads it."""

import pytest

from birthday.config.dsn import read_database_url
from birthday.config.urls import check_database_url


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://ada@one/birthday", ()),
        ("postgresql:///birthday?host=one&port=5433", ()),
        ("postgresql://ada:secret@one:5433,two/birthday", (("one", 5433), ("two", None))),
        ("postgresql://ada@[fd00::1],[fd00::2]:5433/birthday", (("fd00::1", None), ("fd00::2", 5433))),
        ("postgresql://%2Frun%2Fpg,two:5433/birthday", (("/run/pg", None), ("two", 5433))),
        ("postgresql:///birthday?host=one,two&port=5433,5434", (("one", 5433), ("two", 5434))),
        ("postgresql:///birthday?host=one,two&port=5433", (("one", 5433), ("two", 5433))),
    ],
)
def test_several_hosts_are_read_with_their_ports(url: str, hosts: tuple[tuple[str, int | None], ...]) -> None:
    """They are in the authority or in the query; one host alone is left to the driver."""
    check_database_url(url)
    assert read_database_url(url).hosts == hosts


def test_several_hosts_mean_the_one_that_can_be_written_to() -> None:
    """Unless the URL says otherwise; a single host is not asked. What is left of the URL names no host."""
    without = "postgresql:///birthday?target_session_attrs=read-write"
    assert read_database_url("postgresql://one,two/birthday").dsn == without
    chosen = "postgresql://ada:secret@[fd00::1],[fd00::2]:5433/birthday?target_session_attrs=any"
    assert read_database_url(chosen).dsn == "postgresql://ada:secret@/birthday?target_session_attrs=any"
    assert read_database_url("postgresql://one/birthday").dsn == "postgresql://one/birthday"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://one,/birthday", "host1:5432,host2:5432"),
        ("postgresql:///birthday?host=one,two&port=1,2,3", "3 ports for 2 hosts"),
    ],
)
def test_hosts_that_cannot_be_told_apart_are_refused(url: str, named: str) -> None:
    """The text says what is accepted."""
    with pytest.raises(ValueError, match=named):
        check_database_url(url)
