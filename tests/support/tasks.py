"""Tasks that run beside a test."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


@asynccontextmanager
async def background(task: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something without end for the length of the context."""
    running = asyncio.create_task(task)
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
