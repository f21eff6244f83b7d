"""Requests with the same Idempotency-Key, one after the other within a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from birthday.errors import BirthdayError, InProgressError, UnavailableError
from birthday.store.idempotency import WAIT_SECONDS, Kept


@dataclass
class Turn:
    """A request that is carried out. ``kept`` is its answer, for the ``requests`` that wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    requests: int = 0
    kept: Kept | None = None


class Turns:
    """Whose turn it is, by key."""

    def __init__(self, room: int) -> None:
        """Say for how many there is room to hold a connection while their handler may need another one."""
        self._room = asyncio.Semaphore(room)
        self._turns: dict[bytes, Turn] = {}

    @asynccontextmanager
    async def turn(self, key: bytes) -> AsyncIterator[Turn]:
        """Let one at a time in. Those that have waited get the turn of the one before them.

        Raises:
            InProgressError: if it takes longer than ``WAIT_SECONDS``.
        """
        turn = self._turns.setdefault(key, Turn())
        turn.requests += 1
        try:
            async with _waiting(turn.lock, InProgressError()):
                yield turn
        finally:
            turn.requests -= 1
            if not turn.requests:
                del self._turns[key]

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
