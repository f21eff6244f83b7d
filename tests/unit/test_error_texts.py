"""What a log says of an exception: enough to find the mistake, nothing of anybody's data."""

import asyncio

import asyncpg
import orjson
import pytest

from birthday.errors import ConflictError, FieldError, InvalidInputError, UnavailableError
from birthday.telemetry.errors import error_text, error_traceback

SECRET = "zaphod@example.com"


def postgres_error(kind: type[asyncpg.PostgresError], message: str) -> asyncpg.PostgresError:
    """Return an error as the server sends it, with the values of a row in its detail."""
    error = asyncpg.PostgresError.new(
        {"C": kind.sqlstate, "M": message, "D": f"Key (email)=({SECRET}) already exists."}
    )
    assert isinstance(error, kind)
    return error


def parse() -> None:
    """Raise what a parser raises that quotes its input."""
    int(SECRET)


def parse_error() -> Exception:
    """Return what a parser raises that quotes its input."""
    try:
        parse()
    except ValueError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        postgres_error(
            asyncpg.UniqueViolationError, 'duplicate key value violates unique constraint "users_live_email"'
        ),
        postgres_error(asyncpg.InvalidTextRepresentationError, f'invalid input syntax for type uuid: "{SECRET}"'),
        postgres_error(asyncpg.RaiseError, f"no place for {SECRET}"),
        asyncpg.exceptions._base.DataError(f"invalid input for query argument $1: '{SECRET}'"),  # noqa: SLF001
        ConflictError(f"another user has the e-mail address {SECRET}"),
        InvalidInputError(FieldError("/email", f"'{SECRET}' is no address")),
        KeyError(SECRET),
        parse_error(),
        UnicodeEncodeError("ascii", SECRET, 0, 1, SECRET),
        orjson.JSONDecodeError(SECRET, SECRET, 0),
        RuntimeError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_an_exception_quotes_is_not_told_and_its_type_is(error: Exception) -> None:
    """In one line and in a traceback, alone, as a cause, in a group, and while another one was handled."""
    caused, met = RuntimeError(SECRET), LookupError(SECRET)
    caused.__cause__ = error
    met.__context__ = error
    told = [error_text(error)]
    told += [error_traceback(raised) for raised in (error, caused, met, ExceptionGroup(SECRET, [error]))]
    for text in told:
        assert type(error).__name__ in text
        assert SECRET not in text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UnavailableError("database", "no answer from db.example.com"), "no answer from db.example.com"),
        (
            postgres_error(asyncpg.UniqueViolationError, 'duplicate key value violates unique constraint "one"'),
            'UniqueViolationError (23505): duplicate key value violates unique constraint "one"',
        ),
        (
            postgres_error(asyncpg.CannotConnectNowError, "the database system is starting up"),
            "CannotConnectNowError (57P03): the database system is starting up",
        ),
        (asyncpg.InterfaceError("the pool is closed"), "InterfaceError: the pool is closed"),
        (ConnectionRefusedError(111, "Connection refused"), "ConnectionRefusedError: Connection refused"),
        (TypeError("takes no arguments"), "TypeError: takes no arguments"),
        (TimeoutError(), "TimeoutError"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_quotes_nobody_is_told(error: BaseException, text: str) -> None:
    """Why a dependency is away, what constraint was violated, where the program is wrong: an operator needs it."""
    assert error_text(error) == text


def test_a_traceback_says_where_and_in_which_order() -> None:
    """Files, lines and functions of each exception, first the one that came first."""
    with pytest.raises(UnavailableError) as raised:
        be_away()
    lines = error_traceback(raised.value).splitlines()
    assert [line.rpartition(" ")[2] for line in lines[:2]] == ["be_away", "parse"]
    assert lines[2:4] == ["ValueError", "which led to:"]
    assert lines[-1] == "away"
    assert "test_error_texts.py:" in lines[1]


def test_exceptions_that_are_each_others_cause_end() -> None:
    """A circle is told once."""
    one, other = RuntimeError(), LookupError()
    one.__cause__, other.__cause__ = other, one
    assert error_traceback(one).splitlines() == ["LookupError", "which led to:", "RuntimeError"]


def be_away() -> None:
    """Raise one error because of another one."""
    try:
        parse()
    except ValueError as first:
        raise UnavailableError("database", "away") from first
