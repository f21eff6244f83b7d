"""``birthday smoke`` against the real program."""

import hashlib
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

import asyncpg
import pytest

from birthday.operations.smoke import Finding, smoke
from birthday.telemetry.build import read_version
from tests.support.chaos import ready
from tests.support.product import eventually
from tests.support.program import Program, run, running, starting
from tests.support.proxy import Proxy

KEYS = ",".join(
    f"{name}:{hashlib.sha256(f'key-of-{name}'.encode()).hexdigest()}:{scope}"
    for name, scope in {"ada": "admin", "will": "write", "rita": "read"}.items()
)


@pytest.fixture
async def program(database_url: str) -> AsyncIterator[Program]:
    """Yield a program with an admin's, a writer's and a reader's key, whose probes and metrics need one too."""
    settings = {"CHANNEL": "console", "API_KEYS": KEYS, "PROTECT": "metrics,health"}
    async with running(DATABASE_URL=database_url, **settings) as serving:

        async def is_ready() -> bool:
            return await ready(serving) == 200

        await eventually(is_ready, "the program is ready")
        yield serving


def lines(out: str) -> dict[str, str]:
    """Return what each check has found, by its name."""
    return {name: text.strip() for name, text in (line.split(" ", 1) for line in out.splitlines())}


async def test_a_working_installation_passes_and_nothing_is_left(program: Program, pool: asyncpg.Pool) -> None:
    """Each check has a line. The user is erased, no message was ever planned, and nothing was printed as a greeting."""
    finished = await run("smoke", f"{program.url}/", "--key", "-", stdin="Authorization: Bearer key-of-ada\n")
    found = lines(finished.out)
    assert finished.status == 0, finished.out + finished.err
    names = ["alive", "ready", "health", "versions", "metrics", "user", "preview", "explain", "removal"]
    assert list(found) == names
    assert found["versions"].startswith(read_version())
    assert found["explain"].startswith("not-yet")
    assert found["removal"] == "the test user was deleted and erased"
    assert await pool.fetchval("SELECT count(*) FROM users") == 0
    assert await pool.fetchval("SELECT count(*) FROM message_logs") == 0
    assert program.printed == []
    assert "key-of-ada" not in finished.out + finished.err


async def test_what_a_key_may_not_do_is_said(program: Program, pool: asyncpg.Pool) -> None:
    """A writer can only delete; a reader makes no user; without a key there is advice."""
    written = await run("smoke", program.url, "--key", "key-of-will")
    assert (written.status, "needs a key of the scope admin" in written.out) == (0, True)
    assert await pool.fetchval("SELECT count(*) FROM users WHERE deleted_at IS NULL") == 0
    read = await run("smoke", program.url, "--key", "key-of-rita")
    assert read.status == 1
    assert "FAILED" in lines(read.out)["user"]
    assert "scope write" in lines(read.out)["user"]
    assert "removal" not in lines(read.out)
    none = await run("smoke", program.url)
    assert none.status == 1
    assert "--key" in lines(none.out)["health"]


async def test_another_version_is_named(program: Program) -> None:
    """Old processes that still serve are noticed by what they say of themselves."""
    findings: list[Finding] = []
    assert not await smoke(program.url, "key-of-ada", "99.0", datetime.now(UTC), findings.append)
    failed = {finding.name: finding.says for finding in findings if finding.todo}
    assert set(failed) == {"versions", "metrics"}
    assert f"{read_version()} found, 99.0 is expected" in failed["versions"]


async def test_ctrl_c_removes_the_test_user(program: Program, pool: asyncpg.Pool) -> None:
    """Here while the API does not answer; the removal waits until it does."""
    async with Proxy("127.0.0.1", urlsplit(program.url).port or 0) as proxy:
        proxy.hold_at(b"/explain")
        async with starting("smoke", f"http://127.0.0.1:{proxy.port}", "--key", "key-of-ada") as trying:
            await proxy.holding.wait()
            assert await pool.fetchval("SELECT count(*) FROM users") == 1
            trying.process.send_signal(signal.SIGINT)
            await proxy.heal()
            await trying.wait_for_line("deleted and erased")
            assert await trying.process.wait() == 130
    assert await pool.fetchval("SELECT count(*) FROM users") == 0


async def test_an_installation_that_is_away_and_a_wrong_address_are_failures() -> None:
    """One line with advice, and status 1; what is no address has status 2."""
    away = await run("smoke", "http://127.0.0.1:1")
    assert away.status == 1
    assert list(lines(away.out)) == ["alive"]
    assert "start the API" in away.out
    wrong = await run("smoke", "api.example.com")
    assert wrong.status == 2
    assert "https://api.example.com" in wrong.err
