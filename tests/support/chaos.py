"""What a chaos test is made of: a crowd whose messages are due, processes that can be killed, an audit afterwards.

``CHAOS=full`` in the environment, as ``make chaos`` sets it, asks for everything; otherwise it is what a run of all
tests can bear.
"""

import asyncio
import os
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from random import Random

import aiohttp
import asyncpg
import pytest

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.config import load_settings
from birthday.core.audit import Finding
from birthday.core.occasion import Rules, zone_occasions
from birthday.operations.audit import Audit as ProductAudit
from birthday.store.planning import plan
from birthday.wiring.scheduler import make_auditor
from tests.support.message_service import Answer, Fault, Received
from tests.support.program import Program, running

FULL = os.environ.get("CHAOS") == "full"

SEND_AT = time(0)
"""The programs are started with it, so that whoever has a birthday today is due at once."""

POLL_SECONDS = 0.2

POSTGRES, RABBITMQ = "postgres", "rabbitmq"


def brokers(*short: str) -> pytest.MarkDecorator:
    """Run a test on both brokers, or on those alone unless everything is asked for."""
    return pytest.mark.parametrize("queue_url", [POSTGRES, RABBITMQ] if FULL else short, indirect=True)


@dataclass
class Receiver:
    """The behaviour of a message service that is not reliable, and its memory of what it accepted.

    Each share is of all requests: answered 503; answered 429 with Retry-After; never answered; the connection closed
    before the answer; accepted, and answered only after ``late_by``.
    """

    fail: float = 0.0
    busy: float = 0.0
    hang: float = 0.0
    close: float = 0.0
    late: float = 0.0
    late_by: timedelta = timedelta(seconds=5)
    delay: timedelta = timedelta()
    random: Random = field(default_factory=lambda: Random(1))  # noqa: S311 - which requests fail is no secret
    accepted: defaultdict[str, list[str | None]] = field(default_factory=lambda: defaultdict(list))
    """For each e-mail address, the keys under which a message to it was accepted."""

    def __call__(self, received: Received) -> Answer:
        """Decide about a request. What is accepted counts as accepted even if the answer never arrives."""
        if not received.body:
            # A probe of the health check.
            return Answer()
        roll = self.random.random()
        for share, answer in (
            (self.fail, Answer(503, delay=self.delay)),
            (self.busy, Answer(429, {"Retry-After": "1"}, delay=self.delay)),
            (self.hang, Answer(fault=Fault.HANG)),
            (self.close, Answer(fault=Fault.CLOSE, delay=self.delay)),
        ):
            if roll < share:
                return answer
            roll -= share
        self.accepted[received.json["email"]].append(received.key)
        return Answer(delay=self.late_by if roll < self.late else self.delay)

    @property
    def repeats(self) -> int:
        """How many messages too many were accepted."""
        return sum(len(keys) - 1 for keys in self.accepted.values())


class Crowd:
    """Users with a birthday today, in the database of a test, and what the database says of their messages.

    Its connections are its own and short-lived: whatever happens to the network and the server, an audit is possible.
    """

    def __init__(self, url: str) -> None:
        """Take the URL of a migrated database."""
        self.url = url
        self.since = datetime.now(UTC)

    async def gather(self, count: int) -> None:
        """Add users, and make a message for each that is due now, as the planner does."""
        now = datetime.now(UTC)
        since = now - timedelta(days=1)
        occasions = zone_occasions("UTC", since, now, Rules(send_at=SEND_AT))
        async with self.connection() as connection, connection.transaction():
            await connection.execute(
                """
                INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from,
                                   created_at, updated_at)
                SELECT uuid_v7($1), 'Ada', 'Lovelace', gen_random_uuid() || '@example.com', $2, 'UTC', $1, $1, $1
                FROM generate_series(1, $3)
                """,
                now,
                date(1992, now.month, now.day),
                count,
            )
            assert await plan(connection, occasions, now, since) == count

    async def statuses(self) -> Counter[str]:
        """Return how many messages there are in each status."""
        async with self.connection() as connection:
            rows = await connection.fetch("SELECT status, count(*) AS messages FROM message_logs GROUP BY status")
        return Counter({row["status"]: row["messages"] for row in rows})

    async def attempts(self) -> int:
        """Return how many attempts are counted for all messages, once none is being made."""
        async with self.connection() as connection:
            while True:
                row = await connection.fetchrow(
                    "SELECT sum(attempts) AS attempts, bool_or(status = 'sending') AS sending FROM message_logs"
                )
                if row is not None and not row["sending"]:
                    return int(row["attempts"])
                await asyncio.sleep(0.01)

    async def wait_for_delivered(self, count: int, seconds: float) -> None:
        """Wait until so many messages are delivered; the database may be away meanwhile."""

        async def so_many() -> bool:
            return (await self.statuses())["delivered"] >= count

        await until(so_many, f"{count} messages are delivered", seconds)

    async def wait_until_settled(self, seconds: float) -> None:
        """Wait until nothing is on its way any more.

        Raises:
            AssertionError: if something still is after ``seconds``; says what.
        """
        final = {"delivered", "failed", "cancelled", "expired"}

        async def settled() -> bool:
            return set(await self.statuses()) <= final

        try:
            await until(settled, "all messages are settled", seconds)
        except AssertionError as error:
            error.add_note(f"{dict(await self.statuses())}; {await self._stuck()}")
            raise

    async def audit(self, receiver: Receiver) -> "Audit":
        """Compare who should have been greeted, by ``users`` alone, with what is stored and with what was received.

        Raises:
            AssertionError: if the product's own audit, which has another way to tell who should have been, disagrees.
        """
        audit = await self.compare(receiver)
        own = await self._audit_of_the_product()
        own_counts = (own.expected, own.counts[Finding.DELIVERED], own.counts[Finding.FAILED])
        assert own_counts == (audit.expected, audit.delivered, audit.failed)
        assert not own.has_any((Finding.MISSING, Finding.DUPLICATE, Finding.PENDING))
        return audit

    async def compare(self, receiver: Receiver) -> "Audit":
        """Do what ``audit`` does, without the product's own audit."""
        async with self.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT u.email, m.id::text, m.status, m.error_type
                FROM users u LEFT JOIN message_logs m ON m.user_id = u.id AND m.status <> 'cancelled'
                """
            )
        failed = {row["email"] for row in rows if row["status"] == "failed" and row["error_type"]}
        delivered = {row["email"]: row["id"] for row in rows if row["status"] == "delivered"}
        expected = {row["email"] for row in rows}
        keys = {email: set(accepted) for email, accepted in receiver.accepted.items()}
        return Audit(
            expected=len(expected),
            delivered=len(delivered),
            failed=len(failed),
            missing=sorted((expected - failed - delivered.keys()) | (delivered.keys() - keys.keys())),
            duplicate=sorted(email for email in keys if len(keys[email]) > 1 or email not in expected),
            foreign=sorted(email for email in delivered.keys() & keys.keys() if keys[email] != {delivered[email]}),
            repeats=receiver.repeats,
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection to the database, past any proxy."""
        connection = await asyncpg.connect(self.url, timeout=30, command_timeout=60)
        try:
            yield connection
        finally:
            connection.terminate()

    async def _audit_of_the_product(self) -> ProductAudit:
        now, settings = datetime.now(UTC), load_settings(send_at=f"{SEND_AT:%H:%M}")
        first = datetime.combine(self.since.date(), time(), UTC)
        async with asyncpg.create_pool(self.url, min_size=1, max_size=2) as pool:
            return await make_auditor(settings, pool).audit_with_notes(first, now, now)

    async def _stuck(self) -> list[str]:
        async with self.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT status, attempts, clock_timestamp() - updated_at AS age,
                       next_attempt_at - clock_timestamp() AS next_in, lease_until - clock_timestamp() AS lease
                FROM message_logs WHERE status IN ('scheduled', 'queued', 'sending', 'retrying') LIMIT 5
                """
            )
        return [str(dict(row)) for row in rows]


@dataclass(frozen=True, slots=True)
class Audit:
    """What came of everybody: e-mail addresses, and counts.

    ``missing`` were neither delivered nor failed with a reason, or delivered in the database alone; ``duplicate`` were
    accepted under two keys; ``foreign`` under another key than the message's id. ``repeats`` were accepted again under
    the same key, which is what a receiver can recognise.
    """

    expected: int
    delivered: int
    failed: int
    missing: list[str]
    duplicate: list[str]
    foreign: list[str]
    repeats: int

    def verify(self, *, repeats: int = 0, failed: int = 0) -> None:
        """Make sure that nothing was lost and nothing doubled, and that no more was repeated or failed than that."""
        assert not self.missing, self.missing[:5]
        assert not self.duplicate, self.duplicate[:5]
        assert not self.foreign, self.foreign[:5]
        assert self.delivered + self.failed == self.expected
        assert self.failed <= failed
        assert self.repeats <= repeats


class Fleet:
    """The processes of one installation: each is started with the same settings, and can be killed and replaced."""

    def __init__(self, stack: AsyncExitStack, settings: dict[str, str]) -> None:
        """Start nothing yet; ``stack`` ends what will be started."""
        self.programs: list[Program] = []
        self._stack = stack
        self._settings = settings
        self._roles: dict[int, str] = {}

    async def start(self, role: str, **changes: str) -> Program:
        """Start one process in a role, or in several joined by commas."""
        program = await self._stack.enter_async_context(running("--role", role, **(self._settings | changes)))
        self.programs.append(program)
        self._roles[program.process.pid] = role
        return program

    async def start_many(self, role: str, count: int) -> list[Program]:
        """Start several processes in the same role at the same time."""
        return list(await asyncio.gather(*(self.start(role) for _ in range(count))))

    async def kill(self, program: Program) -> None:
        """End a process the hard way."""
        self.programs.remove(program)
        await program.stop(signal.SIGKILL)

    async def replace(self, program: Program) -> Program:
        """Kill a process, and start another one in its place."""
        await self.kill(program)
        return await self.start(self._roles[program.process.pid])

    async def stop(self) -> None:
        """End all processes as a deployment does, at the same time."""
        await asyncio.gather(*(program.stop() for program in self.programs))

    async def wait_for_ready(self, status: int, seconds: float) -> None:
        """Wait until ``/ready`` of each process answers with ``status``."""

        async def all_answer() -> bool:
            return {await ready(program) for program in self.programs} == {status}

        await until(all_answer, f"/ready answers {status}", seconds)


@asynccontextmanager
async def fleet(database_url: str, queue_url: str | None, service_url: str, **settings: str) -> AsyncIterator[Fleet]:
    """Yield an installation without processes; whatever is started ends with the context.

    An attempt may take three seconds: leases, which follow from it, are short, and no attempt times out because the
    machine is busy.
    """
    defaults = {
        "DATABASE_URL": database_url,
        "MESSAGE_SERVICE_URL": service_url,
        "MESSAGE_SERVICE_TIMEOUT": "3s",
        "SEND_AT": f"{SEND_AT:%H:%M}",
        "SHUTDOWN_TIMEOUT": "10s",
    }
    if queue_url is not None:
        defaults["RABBITMQ_URL"] = queue_url
    async with AsyncExitStack() as stack:
        processes = Fleet(stack, defaults | settings)
        stack.push_async_callback(processes.stop)
        yield processes
        await processes.stop()


@asynccontextmanager
async def open_queue(database_url: str, queue_url: str | None) -> AsyncIterator[Broker]:
    """Yield the queue that an installation uses, to look into it or to publish past its scheduler."""
    if queue_url is not None:
        broker = RabbitMQBroker(queue_url)
        try:
            yield broker
        finally:
            await broker.close()
    else:
        async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
            yield PostgresBroker(pool)


async def ready(program: Program) -> int:
    """Return the status with which a process answers ``/ready``."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
        session.get(f"{program.url}/ready") as response,
    ):
        return response.status


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float) -> None:
    """Wait, in real time, until ``condition`` holds; a server that is away answers it with no.

    Raises:
        AssertionError: if it does not within ``seconds``; names ``what`` was waited for.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            if await condition():
                return
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, aiohttp.ClientError):
            pass
        assert loop.time() < deadline, f"still not so after {seconds:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)


async def let_fault_last(seconds: float) -> None:
    """Sleep: a fault needs a duration, or comes at a moment that nothing tells of. Otherwise wait for a condition."""
    await asyncio.sleep(seconds)
