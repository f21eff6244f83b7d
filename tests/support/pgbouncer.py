"""pgbouncer in front of the tests' PostgreSQL, in the mode that a test wants."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.proxy import Proxy

USER = "nobody"
"""As whom pgbouncer runs if the tests run as root, which it does not run as."""


@asynccontextmanager
async def pgbouncer(database_url: str, mode: str) -> AsyncIterator[str]:
    """Run pgbouncer on a free port, and yield the URL of the same database behind it. ``mode`` is its pool_mode."""
    at = urlsplit(database_url)
    user, _, host = at.netloc.rpartition("@")
    directory, _, port = host.rpartition(":")
    place = _make_directory()
    # The server admits the user of the tests only, by its socket: the proxy is that user.
    async with Proxy(unquote(directory), int(port)) as server, Proxy("127.0.0.1", 1) as free:
        own_port = free.port
        await free.stop()
        users = place / "users.txt"
        users.write_text(f'"{user}" ""\n')
        settings = place / "pgbouncer.ini"
        settings.write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={server.port} user={user}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {own_port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {users}
            pool_mode = {mode}
            server_reset_query = DISCARD ALL
            """
        )
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
        program = shutil.which("pgbouncer", path=path)
        assert program, "pgbouncer is missing: scripts/install-test-dependencies.sh installs it"
        as_user = ["-u", USER] if os.geteuid() == 0 else []
        with (place / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(program, *as_user, str(settings), stdout=log, stderr=log)
        try:
            async with asyncio.timeout(60):
                await _listens(own_port)
            yield at._replace(netloc=f"{user}@127.0.0.1:{own_port}").geturl()
        finally:
            process.kill()
            await process.wait()
            shutil.rmtree(place, ignore_errors=True)


def _make_directory() -> Path:
    """Make a directory that another user can read."""
    directory = Path(tempfile.mkdtemp(prefix="birthday-pgbouncer-"))
    directory.chmod(0o755)
    return directory


async def _listens(port: int) -> None:
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.02)
