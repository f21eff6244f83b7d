"""The container image: what the Dockerfile makes of a bare Debian runs as its user, on a root that is read-only."""

import asyncio
import hashlib
import os
import signal
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.chaos import ready
from tests.support.image import HAS_TOOLS, Image, build_image, first_process, rights
from tests.support.postgres import PostgresServer
from tests.support.product import eventually
from tests.support.program import Program, listening_to
from tests.support.proxy import network

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not HAS_TOOLS, reason="only root can make a Debian, with debootstrap: `make image-check`"),
]

KEY = "key-of-ada"
API_KEYS = f"ada:{hashlib.sha256(KEY.encode()).hexdigest()}:admin"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Build the image, and remove it afterwards, because it is large."""
    with TemporaryDirectory(prefix="birthday-image-") as directory:
        Path(directory).chmod(0o755)
        yield build_image(Path(directory))


async def run(*command: str, stdin: str = "") -> tuple[int | None, str]:
    """Run a command to its end, and return its status and all that it printed."""
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    async with asyncio.timeout(60):
        out, _ = await process.communicate(stdin.encode())
    return process.returncode, out.decode()


@asynccontextmanager
async def container(*command: str) -> AsyncIterator[tuple[Program, int]]:
    """Yield the program that has started in a container, and its process id out here; end both with the context."""
    async with listening_to(*command) as program:
        try:
            await program.wait_for_event("service.started")
            yield program, first_process(program.process.pid) or 0
        finally:
            # What waits for the first process hands no signal on to it.
            if pid := first_process(program.process.pid):
                os.kill(pid, signal.SIGKILL)


async def test_the_image_migrates_serves_and_stops_as_its_user_on_a_read_only_root(
    image: Image, postgres_server: PostgresServer
) -> None:
    """With an empty database outside: `migrate`, the start, probes, the health check, `smoke` and SIGTERM.

    Only /tmp can be written to, and `migrate` does without it, as the Job of Kubernetes does.
    """
    await postgres_server.start()
    name = await postgres_server.create_database(migrated=False)
    birthday = image.entrypoint
    async with network(postgres_server.url(name), None, "http://127.0.0.1") as between:
        database = {"DATABASE_URL": between.settings["DATABASE_URL"]}
        settings = database | {"API_KEYS": API_KEYS, "CHANNEL": "console", "PORT": "0"}

        assert await run(*image.command("touch", "/opt/birthday-scheduler/new")) == (
            1,
            "touch: cannot touch '/opt/birthday-scheduler/new': Read-only file system\n",
        )
        status, printed = await run(*image.command(*birthday, "migrate", settings=database, has_tmp=False))
        assert status == 0, printed

        async with container(*image.command(*birthday, settings=settings)) as (program, pid):
            assert rights(pid) == (int(image.user.split(":")[0]), {"0" * 16})

            async def is_ready() -> bool:
                return await ready(program) == 200

            await eventually(is_ready, "the program is ready")
            port = program.url.rpartition(":")[2]
            status, printed = await run(*image.command(*image.health_check, settings={"PORT": port}))
            assert (status, printed) == (0, "")
            url = f"http://127.0.0.1:{port}"
            status, printed = await run(*image.command(*birthday, "smoke", url, "--key", "-"), stdin=f"Bearer {KEY}\n")
            assert status == 0, printed

            os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(15):
                assert await program.process.wait() == 0
        # A probe that comes before the worker has subscribed is answered with 503, which is a warning.
        others = [event for event in program.events if event["event"] != "http.request"]
        assert [event for event in others if event.get("level") not in {"debug", "info"}] == []
    await postgres_server.drop_database(name)
