"""Requeues failed messages and removes dead letters, one request of a process at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

import structlog

from birthday.errors import UnavailableError
from birthday.http.context import ApiContext
from birthday.operations.dead_letters.requeue import BATCH, requeue_many
from birthday.store.changes import Actor
from birthday.store.failed import FailedFilter, find_failed

log = structlog.get_logger()

TURN_SECONDS: Final = 10.0
SWEEP_SECONDS: Final = 5.0


@asynccontextmanager
async def turn(context: ApiContext) -> AsyncIterator[None]:
    """Let one request at a time requeue.

    Raises:
        UnavailableError: if others requeue for too long.
    """
    try:
        async with asyncio.timeout(TURN_SECONDS):
            await context.requeueing.acquire()
    except TimeoutError:
        raise UnavailableError("queue", f"others were requeueing for {TURN_SECONDS:g} s") from None
    try:
        yield
    finally:
        context.requeueing.release()


async def requeue_in_turns(
    context: ApiContext, wanted: FailedFilter, limit: int | None, by: Actor, on_batch: Callable[[int], None]
) -> None:
    """Queue failed messages again that ``wanted`` selects, at most ``limit`` if that is given.

    ``on_batch`` gets the number of each batch. Each batch has a turn of its own, so that a long requeue keeps no other
    request waiting.

    Raises:
        UnavailableError: if the database or the queue cannot be used. Messages given to ``on_batch`` stay queued.
    """

    def count(ids: Sequence[UUID]) -> None:
        context.metrics.messages_queued.inc(len(ids))
        on_batch(len(ids))

    async for ids in find_failed(context.pool, wanted, limit):
        for start in range(0, len(ids), BATCH):
            some = ids[start : start + BATCH]
            async with turn(context):
                await requeue_many(context.pool, context.broker, some, context.clock, by, count, context.tracing)


@asynccontextmanager
async def sweep_turn(context: ApiContext) -> AsyncIterator[None]:
    """Let one request at a time remove dead letters. A failure is only logged: the next sweep removes what is left."""
    try:
        async with asyncio.timeout(SWEEP_SECONDS), context.sweeping:
            yield
    except (TimeoutError, UnavailableError) as error:
        log.warning("dlq.left", reason=str(error) or f"not done within {SWEEP_SECONDS:g} s")
