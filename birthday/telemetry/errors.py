"""What a log may say of an exception: enough to find the mistake, but no personal data.

PostgreSQL's errors have the values of a refused row, drivers and parsers quote the input that they could not read, and
a traceback repeats these texts. So the text of an exception is logged only if it is known to quote no data. For all
other exceptions, only type and place are logged.
"""

import traceback
from collections.abc import Iterator
from types import TracebackType

import asyncpg

from birthday.errors import BirthdayError, ConflictError, InvalidInputError

_QUOTING_CLASSES = ("22", "P0")
"""Classes of SQLSTATE whose primary message may quote a value: data exceptions, and errors raised by PL/pgSQL."""


def error_text(error: BaseException) -> str:
    """Return an exception in one line, fit for a log: its type, and its text if that is known to quote no data."""
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
            # str(error) would add the detail, which has the values of the row.
            quotes = str(error.sqlstate).startswith(_QUOTING_CLASSES)
            return "" if quotes or not error.args else str(error.args[0])
        case ValueError():
            # Includes asyncpg's DataError, an InterfaceError that quotes the argument.
            return ""
        case OSError():
            return error.strerror or str(error)
        case BirthdayError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return str(error)
        case AttributeError() | ImportError() | NameError() | TypeError():
            # Their texts quote names in the program, not data.
            return str(error)
        case _:
            return ""


def error_traceback(error: BaseException) -> str:
    """Return the traceback of an exception and of its causes, with the texts of ``error_text`` only."""
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
    # Not extract_tb, because it reads the source of each frame from disk, which would block the event loop.
    for frame, line in traceback.walk_tb(trace):
        yield f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
