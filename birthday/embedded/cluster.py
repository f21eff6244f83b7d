"""One database cluster: making it, starting and stopping its server, and telling whether the server runs.

Call ``start`` and ``stop`` only while holding the start lock of the data directory: one process at a time.
"""

import asyncio
import hashlib
import os
import pwd
import shutil
import signal
import tempfile
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

import asyncpg
import structlog

from birthday.embedded.process import exists, read_arguments, run, start_detached, tail
from birthday.embedded.programs import Account, Programs, choose_programs
from birthday.errors import UnavailableError

log = structlog.get_logger()

DATABASE: Final = "birthday_scheduler"
START_SECONDS: Final = 120.0
"""Time limit of a start, which may include making the cluster, or recovering it after a crash."""
STOP_SECONDS: Final = 30.0
_STOP_AT_ONCE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.03

_PORT: Final = 5432
_SOCKET: Final = f".s.PGSQL.{_PORT}"
# A socket's address has room for 104 bytes on macOS and 108 on Linux, of which the last is NUL.
_SOCKET_PATH_BYTES: Final = 103
_KEEP_LOG_BYTES: Final = 10_000_000

_SETTINGS: Final = {
    "listen_addresses": "",
    "port": str(_PORT),
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Our program gets the errors of its statements anyway; in this log they would only add e-mail addresses to a file.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}
_NOT_DURABLE: Final = {"fsync": "off"}


class _State(Enum):
    READY = auto()
    BUSY = auto()
    ABSENT = auto()


class Cluster:
    """A database cluster in a data directory, and the server that runs on it."""

    def __init__(self, data_dir: Path, programs: Programs, user: str, *, durable: bool) -> None:
        """Only compute paths; nothing is made or started. ``user`` is our own, the only one that the server admits."""
        self._data_dir = data_dir
        self._directory = data_dir / "postgres"
        self._log_path = data_dir / "postgres.log"
        self._sockets = _socket_directory(self._directory)
        self._programs = programs
        self._user = user
        self._durable = durable

    @classmethod
    async def open(cls, data_dir: Path, bin_dir: Path, *, durable: bool = True) -> Self:
        """Return the cluster of ``data_dir``, an existing absolute path, to be run with the programs in ``bin_dir``.

        Without ``durable`` it is faster: data survives the crash of a process, but not of the machine.
        """
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            raise UnavailableError(
                "database", f"PostgreSQL needs a user with a name, and {os.geteuid()} has none: set DATABASE_URL"
            ) from None
        owner = None
        with suppress(FileNotFoundError):
            status = (data_dir / "postgres").stat()
            owner = Account(status.st_uid, status.st_gid)
        return cls(data_dir, await choose_programs(bin_dir, data_dir, owner), user, durable=durable)

    def dsn(self, database: str = DATABASE) -> str:
        """Return the URL of ``database`` for asyncpg and psql. It has no secret, and needs no quotes in a shell."""
        return f"postgresql://{quote(self._user, safe='')}@{quote(str(self._sockets), safe='')}:{_PORT}/{database}"

    async def start(self) -> None:
        """Start the server unless it runs already, and return once it takes connections.

        Raises:
            UnavailableError: if it takes none; the text has the end of the server's log, or its path.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                if await self._attach():
                    return
                if not self._directory.exists():
                    await self._make()
                self._check_version()
                await self._launch()
        except TimeoutError as error:
            raise UnavailableError(
                "database",
                f"PostgreSQL in {self._directory} takes no connections after {START_SECONDS:g} s (process id "
                f"{await self.server_pid()}); its log is {self._log_path}",
            ) from error
        except OSError as error:
            raise UnavailableError("database", f"cannot use the data directory {self._data_dir}: {error}") from error

    async def stop(self) -> None:
        """Stop the server if it runs, even if clients are connected.

        If that takes too long, it is stopped without a shutdown checkpoint.
        """
        pid = await self.server_pid()
        if pid is None:
            return
        for how, patience in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, _STOP_AT_ONCE_SECONDS)):
            if await self._signal(pid, how, patience):
                log.info("database.stopped", pid=pid)
                if self._sockets != self._directory:
                    shutil.rmtree(self._sockets, ignore_errors=True)
                return
        raise UnavailableError("database", f"PostgreSQL in {self._directory} (process id {pid}) does not stop")

    async def is_gone(self) -> bool:
        """Say whether no server runs; one that is starting or stopping counts as running."""
        return await self.server_pid() is None and await self._state() is _State.ABSENT

    async def server_pid(self) -> int | None:
        """Return the process id of the server, or None if it does not run.

        The command line of the process is checked. If a server was killed, its pid file remains, and another process
        may have the id by now.
        """
        try:
            pid = int((self._directory / "postmaster.pid").read_text().partition("\n")[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if await self._is_server(pid) else None

    async def _signal(self, pid: int, how: signal.Signals, patience: float) -> bool:
        with suppress(ProcessLookupError):
            os.kill(pid, how)
        try:
            async with asyncio.timeout(patience):
                while await self._is_server(pid):  # noqa: ASYNC110 - the end of another process is no event here
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _is_server(self, pid: int) -> bool:
        return b"-D %s " % os.fsencode(self._directory) in await read_arguments(pid)

    async def _state(self) -> _State:
        try:
            connection = await asyncpg.connect(self.dsn("postgres"), timeout=5)
        except (FileNotFoundError, ConnectionRefusedError):
            return _State.ABSENT
        except (OSError, asyncpg.OperatorInterventionError, asyncpg.PostgresConnectionError):
            return _State.BUSY
        except asyncpg.PostgresError as error:
            raise UnavailableError("database", f"PostgreSQL in {self._directory} refuses us: {error}") from error
        await connection.close()
        return _State.READY

    async def _attach(self) -> bool:
        while (state := await self._state()) is not _State.READY:
            # A server that is starting or stopping is waited for.
            if state is _State.ABSENT and await self.server_pid() is None:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        log.info("database.attached", dsn=self.dsn(), pid=await self.server_pid())
        return True

    async def _make(self) -> None:
        """Make the cluster under a temporary name, and rename it: then a cluster that is half made is never used."""
        log.info("database.initialising", directory=str(self._directory))
        await self._sweep()
        staging = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._data_dir))
        try:
            self._give(staging)
            options = ["--encoding=UTF8", *_locale(self._programs.major), "--auth-local=peer", "--auth-host=reject"]
            if not self._durable:
                options.append("--no-sync")
            initdb = self._programs.command("initdb", "-D", staging, "-U", self._user, *options)
            await run(initdb, "initdb", START_SECONDS)
            single = self._programs.command("postgres", "--single", "-D", staging, "-c", "exit_on_error=on", "postgres")
            await run(single, "postgres --single", START_SECONDS, f"CREATE DATABASE {DATABASE}\n")
            _rename_durably(staging, self._directory)
        finally:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
            # If an earlier starter was killed, its initdb may have gone on writing during the first sweep.
            await self._sweep()

    async def _sweep(self) -> None:
        """Remove the unfinished clusters of interrupted starts."""
        for leftover in self._data_dir.glob("postgres.new-*"):
            await asyncio.to_thread(shutil.rmtree, leftover, ignore_errors=True)

    def _check_version(self) -> None:
        try:
            made_by = (self._directory / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise UnavailableError(
                "database",
                f"{self._directory} is not a database cluster: remove it, or set BIRTHDAY_DATA_DIR to something else",
            ) from None
        if made_by != self._programs.major:
            raise UnavailableError(
                "database",
                f"{self._directory} was made by PostgreSQL {made_by}, and {self._programs.directory} has PostgreSQL "
                f"{self._programs.major}: install {made_by}, or move the data with pg_dump or pg_upgrade",
            )

    async def _launch(self) -> None:
        while True:
            self._clear()
            log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
            pid = await start_detached(self._server_command(), "postgres", self._log_path)
            while exists(pid):
                if await self._state() is _State.READY:
                    log.info("database.started", dsn=self.dsn(), pid=pid, programs=str(self._programs.directory))
                    return
                await asyncio.sleep(_POLL_SECONDS)
            wrote = self._log_path.read_bytes()[log_start:]
            # If the postmaster was killed, its server processes need a moment to notice, so the start is tried again.
            if b"pre-existing shared memory block" not in wrote:
                raise UnavailableError("database", f"PostgreSQL in {self._directory} does not start: {tail(wrote)}")
            await asyncio.sleep(_POLL_SECONDS)

    def _server_command(self) -> list[str]:
        settings = _SETTINGS | {"unix_socket_directories": '"' + str(self._sockets).replace('"', '""') + '"'}
        if not self._durable:
            settings |= _NOT_DURABLE
        libraries = self._programs.directory.parent / "lib"
        if any((libraries / place / "pg_stat_statements.so").exists() for place in ("", "postgresql")):
            settings["shared_preload_libraries"] = "pg_stat_statements"
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._programs.command("postgres", "-D", self._directory, *flags)

    def _clear(self) -> None:
        """Remove the files that a killed server has left, make the socket's directory, and rotate a large log."""
        (self._directory / "postmaster.pid").unlink(missing_ok=True)
        if self._sockets != self._directory:
            with suppress(FileExistsError):
                self._sockets.mkdir(mode=0o700)
                self._give(self._sockets)
            if self._sockets.stat(follow_symlinks=False).st_uid != self._programs.account.uid:
                raise UnavailableError("database", f"{self._sockets} belongs to another user: remove it")
        for name in (_SOCKET, f"{_SOCKET}.lock"):
            (self._sockets / name).unlink(missing_ok=True)
        if self._log_path.exists() and self._log_path.stat().st_size > _KEEP_LOG_BYTES:
            self._log_path.replace(self._log_path.with_suffix(".log.old"))

    def _give(self, path: Path) -> None:
        account = self._programs.account
        if account.uid != os.geteuid():
            os.chown(path, account.uid, account.gid)


def _socket_directory(directory: Path) -> Path:
    """Return the directory of the server's socket: the cluster, or one in /tmp if that path cannot be used."""
    fits = len(os.fsencode(directory / _SOCKET)) <= _SOCKET_PATH_BYTES
    # The client reads a comma in the path as a separator of two directories.
    if fits and "," not in str(directory):
        return directory
    return Path("/tmp") / f"birthday-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}"  # noqa: S108


def _rename_durably(path: Path, target: Path) -> None:
    path.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locale(major: str) -> tuple[str, ...]:
    """Return initdb's options for a cluster that sorts by code points and knows the case of letters beyond ASCII.

    PostgreSQL has such a locale of its own from version 17. Before that, the system's locale is used.
    """
    if int(major) >= 17:
        return "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"
    return ("--locale=C.UTF-8",)
