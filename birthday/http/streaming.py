"""Answers that are written piece by piece, and bodies that are read piece by piece."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final, Self, cast

from aiohttp import hdrs, web

from birthday.http.context import CALL_ID, Served
from birthday.http.headers import complete

CHUNK_BYTES: Final = 8 * 1024
"""Small, because the event loop is blocked while a chunk is parsed."""
PAUSE_SECONDS: Final = 0.1
"""How long a body may pause before what has come so far is dealt with."""
BUFFER_BYTES: Final = 4 * 1024 * 1024
_LOW_BYTES: Final = BUFFER_BYTES - 64 * 1024


class ClientError(Exception):
    """The client is gone, or too slow. It is no OSError, which is taken for an error of the database."""


class Stream:
    """The answer to a request. Its head is sent with the first piece, so that an error before that is a problem.

    An error after that closes the connection, so that the client sees that the answer is not complete.
    """

    def __init__(self, request: web.Request, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self._request = request
        own = {hdrs.CONTENT_TYPE: content_type, "X-Accel-Buffering": "no"}
        self.answer = web.StreamResponse(headers={**(headers or {}), **own})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None and self.has_begun:
            self.break_off()

    @property
    def has_begun(self) -> bool:
        """Say whether the head has been sent."""
        return self.answer.prepared

    async def write(self, piece: bytes) -> None:
        """Send a piece, and wait while the client is slow to read.

        Raises:
            ClientError: if the client is gone.
        """
        try:
            if not self.has_begun:
                complete(self.answer, self._request[CALL_ID])
                await self.answer.prepare(self._request)
            await self.answer.write(piece)
        except ConnectionError as error:
            raise ClientError("the client is gone") from error
        cast("Served", self._request.protocol).note_progress()

    async def end(self) -> web.StreamResponse:
        """Complete the answer."""
        await self.write(b"")
        return self.answer

    def break_off(self) -> web.StreamResponse:
        """Close the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()
        return self.answer


def answer_while_reading(request: web.Request) -> None:
    """Let the body of a request take as long as more of it comes, and keep an answer that is not read meanwhile.

    Many clients read nothing of an answer before they have sent all of their body. For these, some of it is kept.
    """
    cast("Served", request.protocol).expect_long_body()
    if request.transport is not None:
        request.transport.set_write_buffer_limits(high=BUFFER_BYTES, low=_LOW_BYTES)


async def read_pieces(request: web.Request) -> AsyncGenerator[bytes, None]:
    """Yield the body in pieces, as they come; an empty one says that no more has come for a while.

    Raises:
        ClientError: if the client is gone, no more has come for too long, or what it sends is malformed.
    """
    content = request.content
    while True:
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                piece = await content.read(CHUNK_BYTES)
        except TimeoutError as error:
            if content.exception() is not None:
                raise ClientError(f"the body could not be read: {error}") from error
            yield b""
            continue
        except (ConnectionError, web.RequestPayloadError) as error:
            raise ClientError(f"the body could not be read: {error}") from error
        if not piece:
            return
        yield piece
        # A body that is here already is read without waiting; others must have their turn.
        await asyncio.sleep(0)
