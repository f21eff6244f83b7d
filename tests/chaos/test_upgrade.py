"""An upgrade and its rollback under load: the previous release and this one side by side, on the newer schema."""

import asyncio
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from birthday.store.migrations import load_migrations
from tests.support.chaos import FULL, RABBITMQ, SEND_AT, Crowd, Receiver, brokers, fleet, let_fault_last
from tests.support.message_service import MessageService
from tests.support.postgres import PostgresServer
from tests.support.program import Program, run

ROOT = Path(__file__).parents[2]
ALL_ROLES = "api,scheduler,worker"


def git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run git in this checkout."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)


LAST_TAG = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^").stdout.decode().strip()
PREVIOUS = LAST_TAG or "9fdbe222960f58672ee0210c2b85143a7fd6225a"
"""The previous release. 0.1.0 has no tag: this is its last commit."""
PIN = re.compile(r"^[a-z0-9._-]+==(?:.*\\\n)*.*\n", re.MULTILINE)
"""A package in a lock file, with its hashes in the lines that follow."""
pytestmark = pytest.mark.skipif(
    git("cat-file", "-e", f"{PREVIOUS}^{{commit}}").returncode != 0,
    reason="the history that has the previous release is not here: a shallow clone, or none",
)


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment that runs the previous release, with the dependencies that are installed here.

    They are newer than those of its lock. Those that this release does without are installed beside it. What it has is
    taken from the history of the repository.
    """
    archive = git("archive", PREVIOUS, "birthday", "schema", "docs/runbook.md", "requirements.lock")
    directory = tmp_path_factory.mktemp("previous")
    subprocess.run(("tar", "-x", "-C", directory), input=archive.stdout, check=True)
    lock = directory / "requirements.lock"
    lock.write_text("".join(pin for pin in PIN.findall(lock.read_text()) if not is_installed(pin.partition("==")[0])))
    command = (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        directory,
        "--requirement",
        lock,
    )
    subprocess.run(command, check=True)
    return {"PYTHONPATH": str(directory), "PYTHONSAFEPATH": "1"}


def is_installed(name: str) -> bool:
    """Say whether a package is installed here, in any version."""
    return any(distributions(name=name))


@pytest.fixture
async def database_url(postgres_server: PostgresServer, previous: dict[str, str]) -> AsyncIterator[str]:
    """Return the URL of an empty database that has the schema of the previous release."""
    await postgres_server.start()
    name = await postgres_server.create_database(migrated=False)
    url = postgres_server.url(name)
    await succeed("migrate", DATABASE_URL=url, **previous)
    yield url
    await postgres_server.drop_database(name)


@brokers(RABBITMQ)
async def test_the_previous_release_runs_beside_this_one_and_after_it(
    crowd: Crowd, database_url: str, queue_url: str | None, previous: dict[str, str]
) -> None:
    """Upgraded, contracted, rolled back, migrated down: no request fails, and nobody is missed or greeted twice."""
    known = Path(previous["PYTHONPATH"]) / "schema"
    newer = [one for one in load_migrations() if not (known / f"{one.label}.up.sql").exists()]
    receiver = Receiver(delay=timedelta(milliseconds=30))
    async with (
        MessageService(receiver) as service,
        fleet(database_url, queue_url, service.url, WORKER_CONCURRENCY="10") as processes,
    ):
        old = [await processes.start(ALL_ROLES, **previous)]
        port = old[0].url.rpartition(":")[2]
        old.append(await processes.start(ALL_ROLES, PORT=port, **previous))
        async with load(old[0].url) as answers:
            await go_on(crowd)
            await succeed("migrate", DATABASE_URL=database_url)
            await go_on(crowd)
            new = []
            for leaver in old:
                new.append(await processes.start(ALL_ROLES, PORT=port))
                await leave(leaver)
                await go_on(crowd)
            contracts = [one for one in newer if one.condition]
            if contracts:
                await succeed("migrate", "--contract", DATABASE_URL=database_url)
                await go_on(crowd)
                undo = ("--contract", "--rollback", f"{len(contracts)}", "--yes")
                await succeed("migrate", *undo, DATABASE_URL=database_url)
            for leaver in new:
                await processes.start(ALL_ROLES, PORT=port, **previous)
                await leave(leaver)
                await go_on(crowd)
            if len(newer) > len(contracts):
                others = len(newer) - len(contracts)
                await succeed("migrate", "--rollback", f"{others}", "--yes", DATABASE_URL=database_url)
                await go_on(crowd)
        await crowd.wait_until_settled(60)
        audit = await crowd.compare(receiver)
    assert set(answers) == {"200", "201"}, answers
    audit.verify()
    assert min(answers.values()) > 50
    days = ("--from", f"{crowd.since:%F}", "--to", f"{datetime.now(UTC):%F}")
    await succeed("audit", *days, DATABASE_URL=database_url, SEND_AT=f"{SEND_AT:%H:%M}", **previous)


async def succeed(*arguments: str, **environment: str) -> None:
    """Run a command of the program, which must end with status 0."""
    finished = await run(*arguments, **environment)
    assert finished.status == 0, finished


async def leave(program: Program) -> None:
    """End a process as a deployment does."""
    assert await program.stop(signal.SIGTERM) == 0


async def go_on(crowd: Crowd) -> None:
    """Wait until messages have been delivered by those who run now."""
    delivered = (await crowd.statuses())["delivered"]
    await crowd.wait_for_delivered(delivered + (1000 if FULL else 40), 60)


@asynccontextmanager
async def load(url: str) -> AsyncIterator[Counter[str]]:
    """Create users and change them until the context ends; yield how many requests had which answer.

    Some clients keep their connection, some do not. Half of the users have their birthday today, the others get it.
    """
    answers: Counter[str] = Counter()
    finished = asyncio.Event()
    async with asyncio.TaskGroup() as clients:
        for client in range(8):
            clients.create_task(be_client(f"{url}/users", client, answers, finished))
        try:
            yield answers
        finally:
            finished.set()


async def be_client(url: str, client: int, answers: Counter[str], finished: asyncio.Event) -> None:
    """Create users, and change each once, until told to stop."""
    number = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=client % 2 == 0)) as session:

        async def ask(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
            try:
                async with session.request(method, url + path, json=body) as response:
                    answers[str(response.status)] += 1
                    answer: dict[str, Any] = await response.json()
                    return answer
            except aiohttp.ClientError as error:
                answers[type(error).__name__] += 1
                return {}

        while not finished.is_set():
            number += 1
            today = datetime.now(UTC)
            born = f"1992-{today:%m-%d}"
            late = number % 2 == 0
            user = await ask(
                "POST",
                "",
                {
                    "firstName": "Ada",
                    "lastName": "Lovelace",
                    "email": f"ada-{client}-{number}@example.com",
                    "dateOfBirth": f"{today - timedelta(days=100):1992-%m-%d}" if late else born,
                    "timezone": "UTC",
                },
            )
            if "id" in user:
                await ask("PATCH", f"/{user['id']}", {"dateOfBirth": born} if late else {"lastName": "Byron"})
            await let_fault_last(0.05)
