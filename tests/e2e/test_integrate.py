"""``docs/integrate.md``, tried: clients are generated from the running API, type-checked, and do what the page says."""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.support.api import api_keys
from tests.support.clients import npm_packages, run
from tests.support.message_service import MessageService
from tests.support.product import eventually
from tests.support.program import running

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "integrate.md").read_text(encoding="utf-8")
KEY = "key-of-shop"
SHIMS = 'set -euo pipefail\npipx() { shift; "$@"; }\nnpm() { :; }\n'
"""What the page installs is there already."""
TYPES = Path(sys.prefix) / "clients-mypy"
"""What mypy has found out about the libraries of the client stays known."""
UNSENT = {"Content-Length", "Connection", "Transfer-Encoding"}
"""Headers of a connection, and of a body that is sent piece by piece: the answer is forwarded as a whole."""
UNKNOWN_TYPES = "POST /users/import within users."
"""The generator knows neither NDJSON nor CSV; as bytes it can send and take them."""
MYPY = """[mypy]
strict = true
[mypy-birthday_client.client]
disable_error_code = arg-type
"""
"""The generator writes the module ``client`` the same for every API, with two loose calls."""
AMBIGUOUS = "no-ambiguous-paths"
"""Redocly does not see that an id, which is a UUID, is never ``by-external-id``."""
PROJECT = """{
  "compilerOptions": {
    "strict": true, "noUncheckedIndexedAccess": true, "exactOptionalPropertyTypes": true,
    "target": "es2022", "module": "nodenext", "types": ["node"], "skipLibCheck": true
  },
  "files": ["integrate.ts"]
}"""


def blocks(language: str) -> str:
    """Return the examples in a language, as one program."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
async def url(database_url: str, message_service: MessageService) -> AsyncIterator[str]:
    """The address of an installation behind a network that loses answers."""
    settings = {
        "DATABASE_URL": database_url,
        "MESSAGE_SERVICE_URL": message_service.url,
        "API_KEYS": api_keys(shop="admin"),
        "SEND_AT": "00:00",
    }
    async with running(**settings) as program, losing_answers(program.url) as url:
        await deliver_one(program.url)
        yield url


async def deliver_one(url: str) -> None:
    """Let there be an outcome."""
    today = f"1990-{datetime.now(UTC):%m-%d}"
    user = {"firstName": "Edsger", "email": "edsger@example.com", "dateOfBirth": today, "timezone": "UTC"}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        async with session.post(f"{url}/users", json=user) as answer:
            assert answer.status == 201

        async def is_delivered() -> bool:
            async with session.get(f"{url}/messages?updatedAfter=0") as answer:
                return bool((await answer.json())["messages"])

        await eventually(is_delivered, "the message is delivered")


@asynccontextmanager
async def losing_answers(target: str) -> AsyncIterator[str]:
    """Forward requests to ``target``; the answer to the first request with an Idempotency-Key never arrives."""
    seen: set[str] = set()

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name != "Transfer-Encoding"}
        async with session.request(
            request.method, target + request.raw_path, headers=headers, data=await request.read()
        ) as answer:
            body = await answer.read()
        key = request.headers.get("Idempotency-Key")
        if key and key not in seen:
            seen.add(key)
            await asyncio.Event().wait()
        kept = {name: value for name, value in answer.headers.items() if name not in UNSENT}
        return web.Response(status=answer.status, headers=kept, body=body)

    app = web.Application(client_max_size=10_000_000)
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers={"Accept-Encoding"}) as session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_curl(url: str, tmp_path: Path) -> None:
    """Every command of the page succeeds."""
    commands = SHIMS + re.sub(r"^(pipx|npx) .*", ":", blocks("bash"), flags=re.MULTILINE)
    assert "delivered" in await asyncio.to_thread(run, tmp_path, "bash", "-c", commands, API=url, KEY=KEY)


async def test_the_python_client(url: str, tmp_path: Path) -> None:
    """It is generated without a warning, strictly typed, and the program of the page works with it."""
    [generate] = re.findall(r"^pipx run (.*)", PAGE, re.MULTILINE)
    (tmp_path / "integrate.py").write_text(blocks("python"))
    (tmp_path / "mypy.ini").write_text(MYPY)

    def work() -> None:
        warnings = re.findall(r"^WARNING parsing (.*)", run(tmp_path, "bash", "-c", generate, API=url), re.MULTILINE)
        assert set(warnings) == {UNKNOWN_TYPES}
        run(tmp_path, "mypy", "--cache-dir", str(TYPES), "integrate.py", "birthday_client")
        assert "delivered" in run(tmp_path, sys.executable, "integrate.py", API=url, KEY=KEY)

    await asyncio.to_thread(work)


async def test_the_typescript_client(url: str, tmp_path: Path) -> None:
    """The same, with a client from npm; and a linter finds nothing in the document that it is generated from."""
    packages = await asyncio.to_thread(npm_packages)
    (tmp_path / "node_modules").symlink_to(packages)
    shutil.copy(packages.parent / "package.json", tmp_path)
    (tmp_path / "tsconfig.json").write_text(PROJECT)
    (tmp_path / "integrate.ts").write_text(blocks("typescript"))
    [generate] = re.findall(r"^npx (.*)", PAGE, re.MULTILINE)

    def work() -> None:
        linted = run(
            tmp_path, "redocly", "lint", f"{url}/openapi.json", "--skip-rule", AMBIGUOUS, REDOCLY_TELEMETRY="off"
        )
        assert "is valid" in linted
        assert "You have" not in linted
        run(tmp_path, "bash", "-c", generate, API=url)
        run(tmp_path, "tsc")
        assert "delivered" in run(tmp_path, "node", "integrate.js", API=url, KEY=KEY)

    await asyncio.to_thread(work)
