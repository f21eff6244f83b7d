"""What an engineer sees: a real Prometheus with the shipped rules scrapes real processes to which things happen."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from tests.support.chaos import Crowd
from tests.support.message_service import Answer, MessageService, Received
from tests.support.monitoring import panels
from tests.support.outcomes import events_to
from tests.support.postgres import PostgresServer
from tests.support.product import eventually
from tests.support.program import Program, run, running
from tests.support.prometheus import impatient, running_prometheus
from tests.support.runbook import RUNBOOK, queries, read_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# Above the 100 dead letters of the alert.
BURST = 120
# Above the 10,000 of the alert, with what the worker holds: 21 times its 100 slots.
BACKLOG = 13_000


@pytest.fixture
def settings(database_url: str, rabbitmq_url: str, message_service: MessageService) -> dict[str, str]:
    """Return the environment of all processes of an installation whose messages are due at midnight, UTC."""
    return {
        "DATABASE_URL": database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "MESSAGE_SERVICE_URL": message_service.url,
        "SEND_AT": "00:00",
        "MAX_ATTEMPTS": "2",
        "RETRY_BASE_DELAY": "100ms",
        "RETRY_MAX_DELAY": "1s",
        "DATABASE_POOL_MAX": "4",
    }


def sometimes(received: Received) -> Answer:
    """Accept most messages, refuse some for good, and be out of order for some."""
    number = int(received.json["email"].partition("-")[0], 36) % 10
    return Answer({0: 400, 1: 503}.get(number, 200))


async def post_user(session: aiohttp.ClientSession, program: Program, number: int, born: datetime) -> None:
    """Create a user; while the database is away, that fails."""
    body = {
        "firstName": "Ada",
        "lastName": "Lovelace",
        "email": f"{number}-{datetime.now(UTC).timestamp()}@example.com",
        "dateOfBirth": f"1992-{born:%m-%d}",
        "timezone": "UTC",
        # The template of that language fails for somebody without a team.
        "locale": "pt" if number % 10 == 4 else "en",
    }
    async with session.post(f"{program.url}/users", json=body) as response:
        await response.read()


@asynccontextmanager
async def traffic(program: Program) -> AsyncIterator[None]:
    """Create users and look at them until the context ends."""

    async def go_on() -> None:
        async with aiohttp.ClientSession() as session:
            number = 0
            while True:
                await post_user(session, program, number, datetime.now(UTC) + timedelta(days=number % 2))
                async with session.get(f"{program.url}/users") as response:
                    await response.read()
                number += 1
                await asyncio.sleep(0.05)

    going = asyncio.create_task(go_on())
    try:
        yield
    finally:
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)


def documented_queries() -> list[str]:
    """Return the queries of the runbook; yesterday is some seconds ago."""
    blocks = read_blocks(RUNBOOK.read_text(encoding="utf-8"))
    examples = [query for block in blocks if block.language == "promql" for query in queries(block.text)]
    return [query.replace("offset 1d", "offset 5s") for query in examples]


async def test_every_panel_and_every_query_of_the_runbook_has_data(
    settings: dict[str, str], postgres_server: PostgresServer, message_service: MessageService, tmp_path: Path
) -> None:
    """Under traffic with failures, retries, dead letters and a short outage of the database, from an empty one on."""
    message_service.behaviour = sometimes
    template = tmp_path / "templates" / "birthday" / "pt" / "message.txt"
    template.parent.mkdir(parents=True)
    template.write_text("Parabéns, {{ first_name }} ({{ attributes.team }})!")
    assert (await run("migrate", **settings)).status == 0
    assert (await run("templates", "push", "--force", str(tmp_path / "templates"), **settings)).status == 0
    asked = sorted({panel.query for panel in panels()} | set(documented_queries()))
    async with (
        MessageService() as receiver,
        running_prometheus(tmp_path) as prometheus,
        running("--role", "api,scheduler", **settings, **events_to(receiver)) as api,
        running("--role", "worker", **settings) as worker,
        traffic(api),
    ):
        prometheus.scrape(api.url, worker.url)
        await message_service.wait_for(BURST, 60)
        await postgres_server.kill()
        failures = 'sum(increase(birthday_scheduler_api_requests_total{status="503"}[1m])) > 0'

        async def has_failed() -> bool:
            return bool(await prometheus.query(failures))

        await eventually(has_failed, "requests fail", 60)
        await postgres_server.start()

        async def all_answered() -> bool:
            return not await prometheus.unanswered(asked)

        with suppress(AssertionError):
            await eventually(all_answered, "every query has data", 90)
        assert await prometheus.unanswered(asked) == []


async def test_alerts_fire_when_their_cause_is_there_and_are_over_when_it_is_gone(
    settings: dict[str, str], message_service: MessageService, tmp_path: Path
) -> None:
    """Faults in the message service, the database, the queue and a process, with alerts that wait for seconds only."""
    crowd = Crowd(settings["DATABASE_URL"])
    settings |= {"CIRCUIT_BREAKER_FAILURE_THRESHOLD": "5", "CIRCUIT_BREAKER_RESET_TIMEOUT": "20s"}
    async with (
        running_prometheus(tmp_path, impatient) as prometheus,
        running("--role", "api,scheduler", **settings) as api,
        running("--role", "worker", **settings) as worker,
    ):
        prometheus.scrape(api.url, worker.url)
        message_service.behaviour = lambda _received: Answer(400)
        await crowd.gather(BURST)
        await prometheus.wait_for_alert("DLQDepthHigh")
        assert (await run("dlq", "purge", "--yes", **settings)).status == 0
        await prometheus.wait_for_alert("DLQDepthHigh", firing=False)

        message_service.behaviour = lambda _received: Answer(503)
        await crowd.gather(BACKLOG)
        await prometheus.wait_for_alert("CircuitBreakerOpen")
        await prometheus.wait_for_alert("QueueDepthCritical")

        async with exhausted_pool(settings["DATABASE_URL"], api):
            await prometheus.wait_for_alert("DatabaseConnectionPoolExhausted")
        await prometheus.wait_for_alert("DatabaseConnectionPoolExhausted", firing=False)

        await worker.stop(signal.SIGKILL)
        await prometheus.wait_for_alert("ServiceDown")
        await prometheus.wait_for_alert("CircuitBreakerOpen", firing=False)
        message_service.behaviour = lambda _received: Answer()
        async with running("--role", "worker", **(settings | {"PORT": str(urlsplit(worker.url).port)})):
            await prometheus.wait_for_alert("ServiceDown", firing=False)
            await prometheus.wait_for_alert("QueueDepthCritical", firing=False)


@asynccontextmanager
async def exhausted_pool(database_url: str, program: Program) -> AsyncIterator[None]:
    """Keep every connection of a process waiting for a lock until the context ends."""

    async def insist(session: aiohttp.ClientSession) -> None:
        while True:
            async with session.get(f"{program.url}/users") as response:
                await response.read()

    connection = await asyncpg.connect(database_url)
    await connection.execute("BEGIN; LOCK TABLE users")
    async with aiohttp.ClientSession() as session:
        clients = [asyncio.create_task(insist(session)) for _ in range(8)]
        try:
            yield
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            await connection.close()
