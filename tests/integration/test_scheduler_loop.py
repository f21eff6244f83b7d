"""The loops of the scheduler, started and stopped: what they do at the start, and in which order."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import date, time, timedelta

import asyncpg
import pytest
import structlog

from birthday.broker.postgres import PostgresBroker
from birthday.core.occasion import Rules
from birthday.scheduler.loop import DispatchProgress, Schedule, run_scheduler
from birthday.store.users import Planning
from birthday.store.watermarks import PLANNED, lock_watermark
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.postgres import PostgresServer
from tests.support.product import Product, eventually, is_waiting_for_a_lock, metric, parse

SELDOM = Schedule("0 0 1 1 *", "0 0 1 1 *", "0 0 1 1 *")


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 12:00 UTC on 1 March 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-03-01T12:00:00Z")), Metrics())


def start(product: Product) -> asyncio.Task[None]:
    """Run the role scheduler."""
    return asyncio.create_task(
        run_scheduler(
            product.planner,
            product.dispatcher,
            product.janitor,
            SELDOM,
            product.clock,
            product.metrics,
            DispatchProgress(),
        )
    )


async def stop(running: asyncio.Task[None]) -> None:
    """End it as the service does."""
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def has_run(product: Product, *jobs: str) -> bool:
    """Say whether each of these jobs has succeeded."""
    return all(metric(product.metrics, "scheduler_last_success_time", task=job) > 0 for job in jobs)


async def test_what_has_only_not_been_planned_yet_is_not_missing(product: Product) -> None:
    """After a long downtime, the first audit waits for the first plan."""
    await product.create(date(1990, 3, 2))
    product.clock.advance(timedelta(hours=30))
    await product.pool.execute("TRUNCATE message_logs")
    async with product.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await lock_watermark(connection, PLANNED)
        running = start(product)
        await eventually(lambda: has_run(product, "recover", "forecast"), "the other jobs have run")
        await eventually(lambda: is_waiting_for_a_lock(product.pool), "the planner waits")
        assert not await has_run(product, "audit")
        await transaction.rollback()
    await eventually(lambda: has_run(product, "plan", "audit"), "it is planned and audited")
    await stop(running)
    assert metric(product.metrics, "audit_birthdays", finding="expected") == 1
    assert metric(product.metrics, "audit_birthdays", finding="missing") == 0


async def test_a_scheduler_that_is_started_with_another_send_at_moves_what_is_planned(product: Product) -> None:
    """At once, although the last sweep was a moment ago."""
    before = replace(product, planning=Planning(Rules(send_at=time(15)), timedelta(hours=48)))
    await before.create(date(1990, 3, 2))
    await before.planner.plan_once(product.clock.now())
    running = start(product)
    await eventually(lambda: has_run(product, "plan"), "it is planned")
    await stop(running)
    assert await product.pool.fetchval("SELECT scheduled_at FROM message_logs") == parse("2027-03-02T09:00:00Z")


async def test_with_a_wrong_clock_no_job_runs_and_with_a_right_one_each_does_at_once(product: Product) -> None:
    """Not at the next tick, which may be a day away."""
    jobs = ("plan", "recover", "retire", "audit", "forecast", "dispatch")
    await product.clock.judge("an hour ahead")
    running = start(product)
    async with asyncio.timeout(60):
        while not product.clock.waits_to_be_right >= len(jobs) - 1:
            await asyncio.sleep(0)
    assert not any([await has_run(product, job) for job in jobs])
    await product.clock.judge(None)
    await eventually(lambda: has_run(product, *jobs), "every job has run")
    await stop(running)


async def test_a_failed_tick_is_an_error_only_if_waiting_does_not_help(
    product: Product, postgres_server: PostgresServer
) -> None:
    """An outage causes warnings. A missing column or table, as after a rollback of the schema, causes errors."""
    await product.pool.execute("ALTER TABLE message_logs RENAME COLUMN scheduled_at TO due_at")
    assert await levels_of_failed_ticks(product) == {"error"}
    await product.pool.execute("ALTER TABLE message_logs RENAME TO letters")
    assert await levels_of_failed_ticks(product) == {"error"}
    await postgres_server.kill()
    assert await levels_of_failed_ticks(product) == {"warning"}


async def levels_of_failed_ticks(product: Product) -> set[str]:
    """Run the scheduler until a tick has failed, and return the levels of the log lines about that."""
    with structlog.testing.capture_logs() as events:
        running = start(product)

        async def has_failed() -> bool:
            return any(event["event"] == "scheduler.tick_failed" for event in events)

        await eventually(has_failed, "a tick has failed")
        await stop(running)
    return {event["log_level"] for event in events if event["event"] == "scheduler.tick_failed"}
