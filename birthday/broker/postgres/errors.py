"""Turns errors of asyncpg into errors of the queue."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from birthday.errors import UnavailableError


@contextmanager
def reported(where: str) -> Iterator[None]:
    """Turn what asyncpg raises into an ``UnavailableError`` that begins with ``where``."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        late = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        raise UnavailableError("queue", f"{where}: {str(error) or late}") from error
