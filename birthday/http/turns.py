"""Requests with the same Idempotency-Key, one after the other within a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from birthday.errors import BirthdayError, InProgressError, UnavailableError
from birthday.store.idempotency import WAIT_SECONDS


class Turns:
    """Whose turn it is, by key."""

    def __init__(self, room: int) -> None:
        """Say for how many there is room to hold a connection while their handler may need another one."""
        self._room = asyncio.Semaphore(room)
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, key: bytes) -> AsyncIterator[None]:
        """Let one at a time in.

        Raises:
            InProgressError: if it takes longer than ``WAIT_SECONDS``.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with _waiting(lock, InProgressError()):
            yield

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait until there is room to hold a connection.

        Raises:
            UnavailableError: if it takes longer than ``WAIT_SECONDS``.
        """
        async with _waiting(self._room, UnavailableError("server", "others with an Idempotency-Key hold connections")):
            yield


@asynccontextmanager
async def _waiting(lock: asyncio.Lock | asyncio.Semaphore, error: BirthdayError) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await lock.acquire()
    except TimeoutError:
        raise error from None
    try:
        yield
    finally:
        lock.release()
