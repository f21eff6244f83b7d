"""The product without its process: real steps on a real database and broker, with the clock and channel of a test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from random import Random
from typing import Literal
from uuid import UUID

import asyncpg

from birthday.broker import Broker
from birthday.channels import Channel
from birthday.config import Settings
from birthday.core.ident import uuid7
from birthday.core.occasion import Rules
from birthday.core.unsubscribe import Links
from birthday.core.user import Profile
from birthday.operations.audit import Auditor
from birthday.operations.forecast import Forecaster
from birthday.operations.pauses import Pauses
from birthday.operations.templates.compiling import Compiler
from birthday.scheduler.dispatcher import Dispatcher
from birthday.scheduler.janitor import Janitor
from birthday.scheduler.planner import Planner
from birthday.store.users import Planning
from birthday.telemetry.metrics import Metrics
from birthday.wiring.channel import make_breaker
from birthday.wiring.scheduler import make_auditor, make_dispatcher, make_janitor, make_planner
from birthday.wiring.shared import Shared
from birthday.wiring.worker import make_pipeline
from birthday.worker.pipeline import Pipeline
from tests.support.clock import ManualClock
from tests.support.users import create_user

HORIZON = timedelta(hours=48)
CATCH_UP = timedelta(hours=48)
PLANNING = Planning(Rules(), HORIZON)


@dataclass(frozen=True)
class Product:
    """The parts of one installation that share a database, a broker and a clock."""

    pool: asyncpg.Pool
    broker: Broker
    clock: ManualClock
    metrics: Metrics
    planning: Planning = PLANNING
    catch_up: timedelta = CATCH_UP
    retry_unknown: Literal["auto", "always", "never"] = "auto"
    ahead: timedelta = timedelta()
    links: Links | None = None

    @cached_property
    def pauses(self) -> Pauses:
        """What is paused. Nobody watches the database for it, unless a test does."""
        return Pauses(self.pool, self.clock, self.metrics)

    @cached_property
    def compiler(self) -> Compiler:
        """What compiles templates; its process ends when the context ``working`` ends."""
        return Compiler()

    def settings(self, concurrency: int = 20, threshold: int = 1000) -> Settings:
        """Return the settings of this installation, whatever the environment says."""
        return Settings.model_construct(
            send_at=self.planning.rules.send_at,
            leap_day=self.planning.rules.leap_day,
            plan_horizon=self.planning.horizon,
            catch_up_window=self.catch_up,
            worker_concurrency=concurrency,
            message_service_timeout=timedelta(seconds=5),
            circuit_breaker_failure_threshold=threshold,
            max_attempts=3,
            retry_base_delay=timedelta(seconds=1),
            retry_max_delay=timedelta(seconds=4),
            retry_unknown=self.retry_unknown,
            dispatch_ahead=self.ahead,
            public_url="https://example.com/greetings/",
        )

    def shared(self, concurrency: int = 20, threshold: int = 1000) -> Shared:
        """Return what the parts of a process share."""
        settings = self.settings(concurrency, threshold)
        return Shared(settings, self.pool, self.broker, self.pauses, self.clock, self.metrics, links=self.links)

    @property
    def auditor(self) -> Auditor:
        """An audit of an installation that keeps messages for 90 days."""
        return make_auditor(self.settings(), self.pool)

    @property
    def forecaster(self) -> Forecaster:
        """A forecaster."""
        return Forecaster(self.pool, self.planning.rules)

    @property
    def planner(self) -> Planner:
        """A planner."""
        return make_planner(self.shared())

    @property
    def dispatcher(self) -> Dispatcher:
        """A dispatcher."""
        return make_dispatcher(self.shared())

    @property
    def janitor(self) -> Janitor:
        """A janitor that keeps messages for 90 days."""
        return make_janitor(self.shared())

    def pipeline(self, channel: Channel, concurrency: int = 20, threshold: int = 1000) -> Pipeline:
        """Return a worker whose circuit opens after ``threshold`` failures in a row."""
        shared = self.shared(concurrency, threshold)
        channel.breaker = make_breaker(shared.settings, self.clock, self.metrics)
        return make_pipeline(shared, channel, self.compiler, Random(0))  # noqa: S311 - jitter, no secret

    @asynccontextmanager
    async def working(self, channel: Channel, concurrency: int = 20, threshold: int = 1000) -> AsyncIterator[Pipeline]:
        """Run a worker for the length of the context, then drain it; what it has not begun to send is given back."""
        pipeline = self.pipeline(channel, concurrency, threshold)
        running = asyncio.create_task(pipeline.run())
        try:
            yield pipeline
        finally:
            pipeline.stop()
            pipeline.hurry()
            async with asyncio.timeout(60):
                await running
            await self.compiler.close()

    async def create(self, born: date, zone: str = "UTC", email: str | None = None) -> UUID:
        """Create a user now, and return the id."""
        user_id = uuid7(self.clock.now())
        profile = Profile("Ada", "Lovelace", email or f"{user_id}@example.com", born, zone)
        await create_user(self.pool, user_id, profile, self.clock.now(), self.planning)
        return user_id

    async def statuses(self) -> dict[str, int]:
        """Return how many messages there are in each status."""
        rows = await self.pool.fetch("SELECT status, count(*) AS messages FROM message_logs GROUP BY status")
        return {row["status"]: row["messages"] for row in rows}

    async def wait_for_statuses(self, expected: dict[str, int]) -> None:
        """Wait, in real time, until there are exactly so many messages in each status."""
        await eventually(lambda: self._has(expected), f"{expected}")

    async def _has(self, expected: dict[str, int]) -> bool:
        return await self.statuses() == expected


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 60) -> None:
    """Wait, in real time, until ``condition`` holds.

    Raises:
        AssertionError: if it does not within ``seconds``; names ``what`` was waited for.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await condition():
        assert loop.time() < deadline, f"still not so after {seconds:g} s: {what}"
        # The condition asks a server in another process: only polling tells.
        await asyncio.sleep(0.02)


async def is_waiting_for_a_lock(pool: asyncpg.Pool) -> bool:
    """Say whether some session of this database waits for a lock.

    Not for a connection in a transaction: until its end, the server shows it the sessions as they were at first.
    """
    waiting: bool = await pool.fetchval(
        """
        SELECT EXISTS (SELECT FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock')
        """
    )
    return waiting


def metric(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of one sample, 0 if it has not been touched."""
    return metrics.registry.get_sample_value(f"birthday_scheduler_{name}", labels) or 0.0


def parse(instant: str) -> datetime:
    """Return an aware UTC instant written with Z."""
    return datetime.fromisoformat(instant)
