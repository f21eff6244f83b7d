"""Messages that the database refuses to update: each fails, with the reason, so that it does not block the others."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
import structlog

from birthday.core.message import ErrorType
from birthday.store.connection import DATABASE_ERRORS, is_outage, stay_cancelled
from birthday.store.refusals import Sifting, fail_refused
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()


async def fail_each(
    pool: asyncpg.Pool, refused: Iterable[tuple[UUID, Exception]], now: datetime, metrics: Metrics
) -> None:
    """Fail each of these. If the database refuses even that, the message is logged, at each tick again.

    Raises:
        DATABASE_ERRORS: if the database is away.
    """
    error_type = ErrorType.PERMANENT_FAILURE.value
    for message_id, error in refused:
        try:
            failed = await fail_refused(pool, message_id, now, error)
        except DATABASE_ERRORS as second:
            stay_cancelled()
            if is_outage(second):
                raise
            failed = None
        if failed is not None:
            metrics.messages_failed.labels(error_type).inc()
            metrics.birthdays_processed.inc()
            log.error("message.failed", message_id=str(message_id), error_type=error_type, error=error)
        else:
            log.error("message.refused", message_id=str(message_id), error=error)


async def mark_each(
    pool: asyncpg.Pool,
    during: str,
    ids: Sequence[UUID],
    mark: Callable[[asyncpg.Pool, Sequence[UUID], datetime], Awaitable[None]],
    now: datetime,
    metrics: Metrics,
) -> list[UUID]:
    """Record with ``mark`` that these are published. Fail those that the database refuses, and return the others.

    Raises:
        DATABASE_ERRORS: if the database is away.
    """

    async def mark_some(some: Sequence[UUID]) -> Sequence[UUID]:
        await mark(pool, some, now)
        return some

    marking = Sifting(during, ids, mark_some)
    await marking.run()
    await fail_each(pool, marking.refused, now, metrics)
    return marking.results
