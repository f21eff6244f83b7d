"""Requeues failed messages. The queue has confirmed each message before its row says ``queued``.

Their dead letters are removed last, so a crash in between loses nothing. It may leave dead letters of messages that are
no longer failed; the next requeue or purge removes these.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from birthday.broker import Broker
from birthday.clock import Clock
from birthday.core.message import Status
from birthday.errors import ConflictError, UnavailableError
from birthday.operations.dead_letters.letters import Kind, look_up
from birthday.store.changes import MESSAGE, Actor, record_changes
from birthday.store.connection import borrow
from birthday.store.dispatching import read_trace_contexts
from birthday.store.failed import FailedFilter, find_failed, requeue
from birthday.store.history import Message, read_message
from birthday.store.refusals import Sifting
from birthday.telemetry.tracing import NO_TRACING, Tracing

log = structlog.get_logger()

BATCH: Final = 500
PUBLISH_SECONDS: Final = 5.0


async def requeue_one(
    pool: asyncpg.Pool, broker: Broker, message_id: UUID, now: datetime, by: Actor, tracing: Tracing = NO_TRACING
) -> Message:
    """Queue a failed message again, with no attempt used.

    If the user is gone or has moved, the worker still cancels the message at the claim.

    Raises:
        NotFoundError: if there is no such message.
        ConflictError: if it is not failed.
        UnavailableError: if it stays failed because the database or the queue cannot be used.
    """
    for message in await _requeue_batch(pool, broker, [message_id], now, by, tracing):
        return message
    async with borrow(pool) as connection:
        message = await read_message(connection, message_id)
    raise ConflictError(
        f"message {message_id} is {message.status}; only a failed message can be sent again", code="not_failed"
    )


async def requeue_many(
    pool: asyncpg.Pool,
    broker: Broker,
    ids: Sequence[UUID],
    clock: Clock,
    by: Actor,
    on_batch: Callable[[Sequence[UUID]], None],
    tracing: Tracing = NO_TRACING,
    status: Status = Status.FAILED,
) -> None:
    """Queue those of ``ids`` again that have ``status``, in this order, up to ``BATCH`` in a transaction.

    ``on_batch`` gets the ids of each batch as soon as they are queued. If the database refuses to move a message, it is
    logged and stays as it is.

    Raises:
        UnavailableError: if the database or the queue cannot be used. Messages given to ``on_batch`` stay queued.
    """

    async def requeue_some(some: Sequence[UUID]) -> list[Message]:
        requeued = await _requeue_batch(pool, broker, some, clock.now(), by, tracing, status)
        on_batch([message.id for message in requeued])
        return requeued

    for start in range(0, len(ids), BATCH):
        requeuing = Sifting("requeue", ids[start : start + BATCH], requeue_some)
        await requeuing.run()
        for message_id, error in requeuing.refused:
            log.error("message.refused", message_id=str(message_id), error=error)


async def requeue_selected(
    pool: asyncpg.Pool,
    broker: Broker,
    wanted: FailedFilter,
    limit: int,
    clock: Clock,
    by: Actor,
    on_batch: Callable[[Sequence[UUID]], None],
    tracing: Tracing = NO_TRACING,
) -> None:
    """Queue up to ``limit`` failed messages again that ``wanted`` selects; see ``requeue_many``."""
    async for ids in find_failed(pool, wanted, limit):
        await requeue_many(pool, broker, ids, clock, by, on_batch, tracing)


async def drop_copy(pool: asyncpg.Pool, broker: Broker, message_id: UUID) -> bool:
    """Remove the dead letters of a message that is no longer failed, and say whether there was one.

    Only the first hundreds of dead letters are searched; the next requeue or purge removes later ones.
    """
    async with broker.dead_letters() as browsing:
        copies = [letter for letter in await browsing.take() if letter.message_id == message_id]
        # Look up only now: the message may have failed again, and this may be its new dead letter.
        settled = [found.letter for found in await look_up(pool, copies) if found.kind is Kind.SETTLED]
        if settled:
            await browsing.drop(settled)
    return bool(settled)


async def _requeue_batch(
    pool: asyncpg.Pool,
    broker: Broker,
    ids: Sequence[UUID],
    now: datetime,
    by: Actor,
    tracing: Tracing,
    status: Status = Status.FAILED,
) -> list[Message]:
    async with borrow(pool) as connection, connection.transaction():
        requeued = await requeue(connection, ids, status, now, tracing.traceparent())
        by_id = {message.id: message for message in requeued}
        contexts = await read_trace_contexts(connection, list(by_id)) if tracing.enabled else ()
        requeued = [by_id[message_id] for message_id in ids if message_id in by_id]
        if requeued:
            changes = [by.change("retried", MESSAGE, message.id, {"status": status}) for message in requeued]
            await record_changes(connection, changes, now)
            try:
                # Publish before the commit, so that each 'queued' row is confirmed. A faster worker waits for the row.
                async with asyncio.timeout(PUBLISH_SECONDS):
                    with tracing.send(contexts):
                        await broker.publish([message.id for message in requeued])
            except TimeoutError:
                raise UnavailableError("queue", f"the queue did not confirm within {PUBLISH_SECONDS:g} s") from None
    return requeued
