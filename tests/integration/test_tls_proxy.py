"""The example of nginx in front of the API, with the real nginx."""

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import asyncpg
import orjson
import pytest
import structlog

from tests.support.api import RUNBOOK_USER, Api, api_keys, running_api
from tests.support.certificates import Certificates
from tests.support.console import Browser

EXAMPLE = Path(__file__).parents[2] / "config" / "nginx" / "birthday-scheduler.conf"
MAIN = """
daemon off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
"""
KEY = {"Authorization": "Bearer key-of-rita"}
LINES = 2000
"""More than 64 KiB, which is the limit of other bodies."""


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API as the example wants it: with keys, and with trust in this host."""
    async with running_api(pool, api_keys=api_keys(rita="read", walter="write"), trusted_proxies="127.0.0.1") as api:
        yield api


@pytest.fixture
async def port(api: Api, certificates: Certificates, tmp_path: Path) -> AsyncIterator[int]:
    """The port of an nginx that is configured by the example, with other ports and another certificate."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "scripts/install-test-dependencies.sh installs nginx"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    site = EXAMPLE.read_text()
    directory = certificates.authority.parent
    for theirs, ours in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "127.0.0.1:3000": api.url.removeprefix("http://"),
        "/etc/ssl/birthday-scheduler/tls.crt": str(directory / "server.pem"),
        "/etc/ssl/birthday-scheduler/tls.key": str(directory / "server.key"),
    }.items():
        assert site.count(theirs) == 1, theirs
        site = site.replace(theirs, ours)
    (tmp_path / "site.conf").write_text(site)
    (tmp_path / "nginx.conf").write_text(MAIN)
    process = await asyncio.create_subprocess_exec(program, "-p", tmp_path, "-c", tmp_path / "nginx.conf")
    try:
        async with asyncio.timeout(60):
            while not await listens(port):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def listens(port: int) -> bool:
    """Say whether somebody listens on a port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_nginx_speaks_tls_for_the_api(api: Api, port: int, certificates: Certificates) -> None:
    """A key is only ever sent over TLS, the API sees who asks, and what only operators ask for is not there."""
    context = ssl.create_default_context(cafile=certificates.authority)
    url = f"https://localhost:{port}"
    forged = {"X-Forwarded-For": "198.51.100.1", "Forwarded": "for=198.51.100.1"}
    with structlog.testing.capture_logs() as events:
        async with api.client.get(f"{url}/users", headers=KEY | forged, ssl=context) as answer:
            assert answer.status == 200
        async with api.client.get(f"{url}/users/1", headers=forged, ssl=context) as answer:
            assert answer.status == 401
            assert answer.headers["X-Request-ID"]
    clients = [event["peer"] for event in events if event["event"] == "auth.failed"]
    assert clients == ["127.0.0.1"]
    for path in ("/metrics", "/health/detailed", "/ready", "/alive"):
        async with api.client.get(url + path, ssl=context) as answer:
            assert answer.status == 404, path
    async with api.client.get(f"http://localhost:{port}/users", headers=KEY) as answer:
        assert answer.status == 400
    with pytest.raises(aiohttp.ClientConnectorError):
        await api.client.get(f"{url}/users", headers=KEY)


async def test_a_file_of_users_comes_through_nginx(
    api: Api, port: int, certificates: Certificates, pool: asyncpg.Pool
) -> None:
    """API and console import more than another body may have. A line is answered before the next one is sent."""
    context = ssl.create_default_context(cafile=certificates.authority)
    url = f"https://localhost:{port}"
    data = b"".join(line(number) for number in range(LINES))
    headers = {"Authorization": "Bearer key-of-walter", "Content-Type": "application/x-ndjson"}
    answered = asyncio.Event()

    async def body() -> AsyncGenerator[bytes, None]:
        yield line(LINES)
        await answered.wait()
        yield data

    async with api.client.post(f"{url}/users/import", data=body(), headers=headers, ssl=context) as answer:
        assert orjson.loads(await answer.content.readline())["status"] == "created"
        answered.set()
        lines = (await answer.read()).splitlines()
    assert orjson.loads(lines[-1])["summary"]["created"] == LINES + 1
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        browser = Browser(replace(api, url=url), client)
        assert (await browser.sign_in("key-of-walter")).path == "/console"
        form = aiohttp.FormData({"mode": "create", "do": "import"})
        form.add_field("file", data.replace(b"@example.com", b"@example.org"), filename="users.ndjson")
        async with client.post(f"{url}/console/import", data=form, headers={"Sec-Fetch-Site": "same-origin"}) as answer:
            assert answer.status == 200
            await answer.read()
    assert await pool.fetchval("SELECT count(*) FROM users") == 2 * LINES + 1


def line(number: int) -> bytes:
    """Return a line of NDJSON."""
    return orjson.dumps(RUNBOOK_USER | {"email": f"{number}@example.com"}) + b"\n"
