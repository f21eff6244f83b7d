"""Retries what an outage of the database or the queue hinders, so that a restart costs no claim and no outcome."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random
from typing import Final, TypeVar

import structlog

from birthday.broker import Consumer
from birthday.clock import Clock
from birthday.core.retry import RetryPolicy
from birthday.errors import UnavailableError
from birthday.store.connection import DATABASE_ERRORS, is_outage, stay_cancelled

log = structlog.get_logger()

_Result = TypeVar("_Result")

RECONNECT: Final = RetryPolicy(2**31, base_delay=timedelta(milliseconds=200), max_delay=timedelta(seconds=5))


async def retry_outage(what: str, statement: Callable[[], Awaitable[_Result]], clock: Clock, random: Random) -> _Result:
    """Run ``statement`` until the database answers, with growing, random waits; cancel it to give up.

    The statement must be safe to repeat, because it may have been committed although the answer was lost. A statement
    that fails whatever the rows are (see ``Sifting``) is repeated too, until an operator repairs the database.

    Raises:
        DATABASE_ERRORS: if the statement is refused, because a retry does not help then.
    """
    attempt = 0
    while True:
        try:
            return await statement()
        except (UnavailableError, *DATABASE_ERRORS) as error:
            stay_cancelled()
            everybody = isinstance(error, UnavailableError)
            if not everybody and not is_outage(error):
                raise
            attempt += 1
            report = log.error if everybody else log.warning
            report("worker.database_unavailable", during=what, attempt=attempt, error=error)
        await clock.sleep(RECONNECT.delay(attempt, None, random).total_seconds())


async def retry_publish(
    publish: Callable[[], Awaitable[None]], consumer: Consumer, clock: Clock, random: Random
) -> None:
    """Run ``publish`` until the queue confirms, as long as ``consumer`` can ack what is published instead.

    A subscription outlasts a silent leader of the queue. If it were given up, its deliveries would go back, and a new
    one could not begin before the cluster has given up on that node.

    Raises:
        UnavailableError: if ``consumer`` is lost. The queue then delivers again what was not acked.
    """
    attempt = 0
    while True:
        try:
            return await publish()
        except UnavailableError as error:
            if consumer.lost:
                raise
            attempt += 1
            log.warning("worker.queue_unavailable", during="publish", attempt=attempt, error=error)
        await clock.sleep(RECONNECT.delay(attempt, None, random).total_seconds())
