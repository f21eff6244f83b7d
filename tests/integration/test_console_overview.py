"""The overview and the runbook of the console."""

import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg

from birthday.store.processes import Process, report
from tests.support.api import api_keys, hang, running_api
from tests.support.console import add_ada, browsing
from tests.support.dead import store_failed

KEYS = api_keys(rita="read", ada="admin")


def running(**values: object) -> Process:
    """Return the report of a process."""
    known: dict[str, object] = {
        "id": uuid4(),
        "host": "one",
        "pid": 1,
        "roles": "api,scheduler,worker",
        "version": "1.4.0",
        "commit": "abc",
        "tzdata": "2026a",
        "settings": {"SEND_AT": "09:00"},
        "started_at": datetime(2026, 3, 1, tzinfo=UTC),
        "circuit": "closed",
        "circuit_reason": None,
    }
    return Process(**(known | values))  # type: ignore[arg-type]


async def test_an_empty_installation_says_how_to_begin(pool: asyncpg.Pool) -> None:
    """With links to pages that exist."""
    async with running_api(pool) as api, browsing(api) as browser, pool.acquire() as connection:
        await report(connection, running())
        shown = await browser.get("/console")
        assert "Nobody to greet yet" in shown.text
        begin = shown.text[shown.text.index('<ul class="begin">') :].partition("</ul>")[0]
        links = re.findall(r'href="([^"]+)"', begin)
        assert links[-1] == "/docs"
        assert [(await browser.get(link)).status for link in links] == [200] * len(links)


async def test_what_is_due_and_delivered_is_counted(pool: asyncpg.Pool) -> None:
    """By UTC day: what was late shows, and the next hours as a picture with its numbers as text."""
    async with running_api(pool) as api, browsing(api) as browser:
        await pool.execute("UPDATE watermarks SET reached_at = $1", api.clock.now() + timedelta(hours=40))
        for number, seconds in enumerate((0, 2, 90)):
            user = await api.create(email=f"{number}@example.com", dateOfBirth="1990-03-01", timezoneOffset=0)
            await pool.execute(
                "UPDATE message_logs SET status = 'delivered', delivered_at = scheduled_at + $2 * interval '1 s' "
                "WHERE user_id = $1",
                user["id"],
                seconds,
            )
        await api.create(email="next@example.com", dateOfBirth="1990-03-02", timezoneOffset=60)
        shown = await browser.get("/console")
        assert re.search(r"<dt>Delivered</dt><dd>3<small>66.7 % within 60 s", shown.text)
        assert "1 message within 5 s" in shown.text
        assert 'aria-label="08:00 UTC: 1 message"' in shown.text
        assert re.search(r"<dt>Next peak</dt><dd>1<small>at 08:00 UTC", shown.text)


async def test_what_wants_attention_is_told_with_what_mends_it(pool: asyncpg.Pool) -> None:
    """Each thing has a link to a section of the runbook that exists."""
    async with running_api(pool, api_keys=KEYS) as api, browsing(api, "key-of-rita") as browser:
        await add_ada(api)
        await store_failed(pool, 2, api.clock.now())
        api.context.metrics.queue_depth.set(7)
        api.context.metrics.consumer_count.set(0)
        api.context.notices.update({"max_connections": "all connections are in use"})
        async with pool.acquire() as connection:
            await report(connection, running(roles="worker", circuit="open", circuit_reason="refused: 401"))
            await report(
                connection, running(version="1.3.2", tzdata="2025a", roles="api", settings={"SEND_AT": "10:00"})
            )
        api.clock.advance(timedelta(minutes=20))
        shown = await browser.get("/console")
        assert "5 things want attention" in shown.text
        for text in (
            "Circuit open: refused: 401",
            "7 messages are in the queue, and no worker takes any",
            "No scheduler runs",
            "Messages are overdue",
            "The planner is behind",
            "2 messages failed for good",
            "Versions differ",
            "Time-zone data differ",
            "SEND_AT is 09:00 and 10:00",
            "Greetings are only printed",
            "all connections are in use",
        ):
            assert text in shown.text, text
        sections = set(re.findall(r'href="/console/runbook#([^"]+)"', shown.text))
        assert len(sections) > 5
        anchors = set(re.findall(r'id="([^"]+)"', (await browser.get("/console/runbook")).text))
        assert sections - anchors == set()


async def test_a_dependency_that_fails_is_the_headline(pool: asyncpg.Pool) -> None:
    """With the reason that /ready has."""

    async def fail() -> None:
        raise RuntimeError("no room on the disk")

    async with running_api(pool, checks={"database": fail}) as api, browsing(api) as browser:
        shown = await browser.get("/console")
        assert "Database fails" in shown.text


async def test_a_dependency_that_hangs_delays_no_page(pool: asyncpg.Pool) -> None:
    """What it turns out to be shows as soon as it is known."""
    async with running_api(pool, channel=hang) as api, browsing(api) as browser:
        shown = await browser.get("/console")
        assert "Channel fails" not in shown.text
        assert (await api.context.readiness.check_all())["channel"].reason == "no answer within 2 s"
        assert "Channel fails" in (await browser.get("/console")).text
