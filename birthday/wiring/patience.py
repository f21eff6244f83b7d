"""The patience of a start: it waits up to START_TIMEOUT for what is away, tells so, and answers probes meanwhile."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from typing import Final, Self, TypeVar

import structlog

from birthday.config import Settings, show_duration
from birthday.errors import AwayError, BirthdayError, UnavailableError
from birthday.http.hiding import hiding
from birthday.http.server import serve
from birthday.http.starting import build_waiting
from birthday.operations.readiness import DATABASE

T = TypeVar("T")
log = structlog.get_logger()

RETRY_SECONDS: Final = 0.5
QUIET_SECONDS: Final = 1.0
"""What answers within this time is not called away."""
TELL_SECONDS: Final = 5.0
_GRACE: Final = timedelta(seconds=1)


class StoppedError(BirthdayError):
    """The process was asked to stop before its start was complete."""


class Patience:
    """Opens what may be away. A refusal, such as a wrong password, is not waited out."""

    def __init__(self, settings: Settings, stop: asyncio.Event) -> None:
        """Begin to count START_TIMEOUT. Once ``stop`` is set, nothing is waited for."""
        self.port = settings.port
        """The port to serve: PORT or, if that is 0 and probes were answered already, the free one that was found."""
        self._settings = settings
        self._stop = stop
        seconds = settings.start_timeout.total_seconds()
        self._until = asyncio.get_running_loop().time() + seconds if seconds else None
        self._obstacle: UnavailableError = AwayError("database", "")
        self._listener = AsyncExitStack()
        self._is_listening = False

    async def open(self, stack: AsyncExitStack, what: str, opening: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Enter a context on ``stack``. While it raises ``AwayError``, try again. ``what`` names the resource.

        The context is entered by another task than the one that leaves it.

        Raises:
            AwayError: if START_TIMEOUT is over.
            StoppedError: if the process is asked to stop meanwhile.
        """
        if what == DATABASE and self._settings.database_url is None:
            # The embedded database is started here, so it is never away. Its first start takes seconds.
            return await stack.enter_async_context(opening())
        self._obstacle = AwayError(what, f"the {what} has not answered yet")
        opened = asyncio.create_task(self._keep_trying(stack, opening))
        stopped = asyncio.create_task(self._stop.wait())
        pause = QUIET_SECONDS
        try:
            while True:
                left = self._seconds_left()
                patience = pause if left is None else min(pause, left)
                await asyncio.wait({opened, stopped}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if opened.done():
                    return opened.result()
                if stopped.done():
                    raise StoppedError("asked to stop")
                if self._seconds_left() == 0:
                    waited = show_duration(self._settings.start_timeout)
                    raise AwayError(what, f"{self._obstacle}; waited for START_TIMEOUT={waited}")
                await self._answer_probes()
                log.warning("service.waiting", resource=what, port=self.port, reason=str(self._obstacle))
                pause = TELL_SECONDS
        finally:
            opened.cancel()
            stopped.cancel()
            await asyncio.gather(opened, stopped, return_exceptions=True)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop answering probes."""
        await self.end()

    async def end(self) -> None:
        """Stop answering probes; idempotent."""
        await self._listener.aclose()

    async def _keep_trying(self, stack: AsyncExitStack, opening: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        while True:
            try:
                return await stack.enter_async_context(opening())
            except AwayError as error:
                if self._until is None:
                    raise
                self._obstacle = error
            await asyncio.sleep(RETRY_SECONDS)

    async def _answer_probes(self) -> None:
        if not self._is_listening:
            app = build_waiting(lambda: self._obstacle, hiding(self._settings))
            address = await self._listener.enter_async_context(
                serve(app, self._settings.host, self.port, _GRACE, linger=timedelta())
            )
            self.port = address[1]
            self._is_listening = True

    def _seconds_left(self) -> float | None:
        """Return how much of START_TIMEOUT is left; None if it is 0, which gives up after one try."""
        return None if self._until is None else max(self._until - asyncio.get_running_loop().time(), 0)
