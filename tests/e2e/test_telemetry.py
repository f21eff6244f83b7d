"""The metrics and probes of a process while its dependencies are away, and what holds its event loop up."""

import asyncio
import time
from statistics import median
from urllib.parse import urlsplit

import aiohttp

from tests.support.message_service import MessageService
from tests.support.product import eventually
from tests.support.program import Program, running
from tests.support.proxy import network

SCRAPES = 20
SCRAPE_SECONDS = 0.1
PROBE_SECONDS = 4
PATHS = ("/health", "/health/detailed", "/health/db", "/health/queue", "/ready", "/alive")


async def scrape(program: Program) -> tuple[dict[str, float], float]:
    """Return what a process exports, and how many seconds that took."""
    started = time.perf_counter()
    async with aiohttp.ClientSession() as session, session.get(f"{program.url}/metrics") as response:
        text = await response.text()
    seconds = time.perf_counter() - started
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name.removeprefix("birthday_scheduler_"): float(value) for name, value in pairs}, seconds


async def test_metrics_and_probes_answer_in_time_while_everything_is_silent(
    database_url: str, rabbitmq_url: str, message_service: MessageService
) -> None:
    """With database, queue and message service silent, a scrape takes less than 100 ms, a probe a bounded time."""
    async with (
        network(database_url, rabbitmq_url, message_service.url) as between,
        running(**between.settings) as program,
    ):

        async def has_figures() -> bool:
            shown, _ = await scrape(program)
            return {"queue_depth", "database_commits_total", "api_health_score", "index_hit_ratio"} <= set(shown)

        await eventually(has_figures, "all figures are there", 60)
        for proxy in (between.database, between.queue, between.service):
            proxy.silence()

        async def has_gaps() -> bool:
            shown, _ = await scrape(program)
            return not {"queue_depth", "dlq_depth", "database_commits_total", "index_hit_ratio"} & set(shown)

        await eventually(has_gaps, "no old values are shown", 60)
        scrapes = [await scrape(program) for _ in range(SCRAPES)]
        assert median(seconds for _, seconds in scrapes) < SCRAPE_SECONDS
        shown, _ = scrapes[-1]
        assert shown['collector_errors_total{collector="queue"}'] > 0
        assert shown['collector_errors_total{collector="database"}'] > 0
        assert shown["api_health_score"] <= 100
        assert shown["event_loop_lag_seconds"] < PROBE_SECONDS
        async with aiohttp.ClientSession() as session:
            for path in PATHS:
                async with asyncio.timeout(PROBE_SECONDS), session.get(program.url + path) as response:
                    text = await response.text()
                assert response.status == (200 if path == "/alive" else 503), (path, text)
                assert f":{urlsplit(rabbitmq_url).password}@" not in text
        for proxy in (between.database, between.queue, between.service):
            await proxy.heal()


async def test_a_load_holds_nothing_up_for_long(
    database_url: str, rabbitmq_url: str, message_service: MessageService
) -> None:
    """Hundreds of users are created and greeted: no call of the program computes for a twentieth of a second."""
    settings = {
        "DATABASE_URL": database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "MESSAGE_SERVICE_URL": message_service.url,
        "SEND_AT": "00:00",
        "EVENT_LOOP_DEBUG": "true",
    }
    users = 300
    async with running(**settings) as program, aiohttp.ClientSession() as session:
        today = time.strftime("%m-%d", time.gmtime())

        async def create(number: int) -> None:
            body = {
                "firstName": "Ada",
                "lastName": "Lovelace",
                "email": f"ada-{number}@example.com",
                "dateOfBirth": f"1992-{today}",
                "timezone": "UTC",
            }
            async with session.post(f"{program.url}/users", json=body) as response:
                assert response.status == 201

        await asyncio.gather(*(create(number) for number in range(users)))

        async def all_are_greeted() -> bool:
            shown, _ = await scrape(program)
            return shown["messages_delivered_total"] == users

        await eventually(all_are_greeted, "all are greeted", 60)
        await program.stop()
    blocked = [event for event in program.events if event["event"] == "event_loop.blocked"]
    assert [event for event in blocked if event["cpu_seconds"] > 0.05] == []
