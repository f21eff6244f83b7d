"""A start waits for a database or RabbitMQ that is away, and says so. It does not wait where waiting cannot help."""

import asyncio
import json
import os
import re
import signal
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.support.program import command, run, starting
from tests.support.proxy import Network, network


@pytest.fixture
async def between(database_url: str, rabbitmq_url: str) -> AsyncIterator[Network]:
    """Yield a network between the program and its servers."""
    async with network(database_url, rabbitmq_url, "http://127.0.0.1:9") as network_between:
        yield network_between


async def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Return the status and the text of an answer."""
    async with aiohttp.ClientSession() as session, session.request(method, f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("resource", ["database", "queue"])
async def test_a_start_waits_for_what_is_away_and_answers_probes_meanwhile(between: Network, resource: str) -> None:
    """It is alive, and not ready with the reason, without addresses. Then it starts, on the same port."""
    proxy = between.database if resource == "database" else between.queue
    await proxy.cut()
    async with starting(**between.settings) as program:
        waiting = await program.wait_for_event("service.waiting")
        assert (waiting["level"], waiting["resource"]) == ("warning", resource)
        assert f"127.0.0.1:{proxy.port}" in waiting["reason"]
        port = waiting["port"]
        assert (await ask(port, "/alive"))[0] == 200
        status, text = await ask(port, "/ready")
        assert status == 503
        assert f'"{resource}":"unhealthy"' in text
        assert "refused" in text.lower()
        assert "127.0.0.1" not in text
        for method, path in (("POST", "/users"), ("GET", "/health")):
            status, text = await ask(port, path, method)
            assert (status, f"waits for the {resource}" in text) == (503, True)
        await proxy.heal()
        await program.wait_for_event("service.started")
        assert urlsplit(program.url).port == port
        assert (await ask(port, "/users"))[0] == 200
        assert await program.stop() == 0


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_a_start_gives_up_after_its_time(between: Network, how: str) -> None:
    """Whether the server refuses connections or does not answer: status 1, with the reason and the setting."""
    if how == "refused":
        await between.database.cut()
    else:
        between.database.silence()
    # One attempt to connect to a silent server takes 50 seconds.
    settings = between.settings | {"DATABASE_URL": between.settings["DATABASE_URL"] + "?connect_timeout=50"}
    began = time.monotonic()
    async with starting(**settings, START_TIMEOUT="2s") as program:
        failed = await program.wait_for_event("service.failed")
        assert await program.process.wait() == 1
    assert "START_TIMEOUT=2s" in failed["error"]
    assert "database" in failed["error"]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
async def test_a_start_that_waits_can_be_stopped(between: Network, how: signal.Signals) -> None:
    """At once, as a running program, even while the server does not answer."""
    between.database.silence()
    async with starting(**between.settings) as program:
        await program.wait_for_event("service.waiting")
        assert await program.stop(how, 5) == 0
    assert program.events[-1]["event"] == "service.stopped"


async def test_a_refusal_is_not_waited_out(between: Network) -> None:
    """An unknown user, database or virtual host and a wrong password fail at once, with a text that says so."""
    database, queue = urlsplit(between.settings["DATABASE_URL"]), urlsplit(between.settings["RABBITMQ_URL"])
    place = f"127.0.0.1:{between.queue.port}"
    wrong = [
        ("DATABASE_URL", database._replace(netloc=f"stranger@127.0.0.1:{between.database.port}"), "stranger"),
        ("DATABASE_URL", database._replace(path="/nowhere"), 'nowhere\\" does not exist'),
        ("RABBITMQ_URL", queue._replace(netloc=f"{queue.username}:wrong@{place}"), "ACCESS_REFUSED"),
        ("RABBITMQ_URL", queue._replace(path="/nowhere"), "virtual host"),
    ]
    settings = between.settings | {"PORT": "0"}
    finished = await asyncio.gather(*(run(**settings | {name: url.geturl()}) for name, url, _ in wrong))
    for (_, _, text), one in zip(wrong, finished, strict=True):
        assert one.status == 1
        assert text in one.err
        assert "service.failed" in one.err
        assert "START_TIMEOUT" not in one.err
        # On a busy machine, a server may take a second to refuse. After that, nothing is waited for.
        waits = [line for line in one.err.splitlines() if "service.waiting" in line]
        assert [line for line in waits if "has not answered yet" not in line] == []


async def test_a_terminal_shows_where_everything_is_although_the_log_goes_to_a_file(
    database_url: str, tmp_path: Path
) -> None:
    """A person who tries the program finds the console; the file has the addresses, too."""
    master, slave = os.openpty()
    settings = {"DATABASE_URL": database_url, "CHANNEL": "console", "PORT": "0", "LOG_FILE": str(tmp_path / "log")}
    process = await asyncio.create_subprocess_exec(*command(), env=os.environ | settings, stdout=DEVNULL, stderr=slave)
    os.close(slave)
    try:
        shown = await asyncio.to_thread(read_until, master, b"Ctrl-C stops it")
    finally:
        process.terminate()
        await process.wait()
        os.close(master)
    [address] = re.findall(r"Console +(http://127\.0\.0\.1:\d+/console)", shown)
    [started] = [line for line in read_lines(tmp_path / "log") if line["event"] == "service.started"]
    assert started["console"] == address


def read_until(descriptor: int, end: bytes) -> str:
    """Return what a terminal shows up to a text."""
    shown = b""
    while end not in shown:
        shown += os.read(descriptor, 4096)
    return shown.decode()


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the events of a log file."""
    return [json.loads(line) for line in file.read_text().splitlines()]
