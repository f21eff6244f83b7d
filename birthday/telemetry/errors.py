"""What a log may say of an exception: enough to find the mistake, and nothing that it quotes from somebody's data.

PostgreSQL adds the values of a refused row to its errors, drivers and parsers quote what they could not read, and a
traceback repeats all that. So the text of an exception is told only where it is known to hold none of it; of any other
one it is the type, and where it came from.
"""

import traceback
from collections.abc import Iterator
from types import TracebackType

import asyncpg

from birthday.errors import BirthdayError, ConflictError, InvalidInputError

_QUOTING_CLASSES = ("22", "P0")
"""Classes of SQLSTATE whose primary message may hold a value: data exceptions, and what a trigger raises."""


def error_text(error: BaseException) -> str:
    """Return what may be said of an exception in one line: its type, and its text if that quotes nobody's data."""
    name, text = type(error).__name__, _harmless_text(error)
    if isinstance(error, BirthdayError) and text:
        return text
    if isinstance(error, asyncpg.PostgresError):
        name += f" ({error.sqlstate})"
    return f"{name}: {text}" if text else name


def _harmless_text(error: BaseException) -> str:
    match error:
        case InvalidInputError() | ConflictError():
            return ""
        case asyncpg.PostgresError():
            # Its text as a whole goes on with the detail, which holds the values of the row.
            quotes = str(error.sqlstate).startswith(_QUOTING_CLASSES)
            return "" if quotes or not error.args else str(error.args[0])
        case ValueError():
            # Also asyncpg's DataError, an InterfaceError that quotes the argument.
            return ""
        case OSError():
            return error.strerror or str(error)
        case BirthdayError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return str(error)
        case AttributeError() | ImportError() | NameError() | TypeError():
            # These name what stands in the program.
            return str(error)
        case _:
            return ""


def error_traceback(error: BaseException) -> str:
    """Return the traceback of an exception and of those that led to it, with no more text than ``error_text``."""
    return "\n".join(_lines(error, set()))


def _lines(error: BaseException, told: set[int]) -> Iterator[str]:
    told.add(id(error))
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and id(earlier) not in told:
        yield from _lines(earlier, told)
        yield "which led to:"
    yield from _frames(error.__traceback__)
    yield error_text(error)
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from (f"  {line}" for line in _lines(member, told))


def _frames(trace: TracebackType | None) -> Iterator[str]:
    # Not extract_tb, which looks for the source of each frame: a file or two of the disk, in the event loop.
    for frame, line in traceback.walk_tb(trace):
        yield f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
