"""Processes: run one to its end with a time limit, start one that outlives us, and see whether one exists."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from birthday.errors import UnavailableError

# Our own environment is not passed on: PGDATA, PGOPTIONS, LC_MESSAGES and others would change what the programs do.
_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_TAIL_CHARACTERS: Final = 2000
_HAS_PROC: Final = sys.platform == "linux"

# An intermediate process starts the program in a new session and ends, so that Ctrl-C in our terminal does not reach
# the program. It also keeps descriptors from being inherited: uvloop leaves some open in the processes that it starts,
# and the reader of a pipe that the program keeps open would never see the end of it.
_DETACH: Final = """
import os, subprocess, sys
os.umask(0o077)
with open(sys.argv[1], "ab") as log:
    process = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
print(process.pid)
"""


async def run(command: Sequence[str], name: str, patience: float, text: str = "") -> str:
    """Run ``command`` with ``text`` (a few lines) as its input, and return its output. Errors call it ``name``.

    If it takes longer than ``patience`` seconds, it is killed with all its children.

    Raises:
        UnavailableError: if it cannot be started, fails or is killed; if it fails, the text has the end of its output.
    """
    # The pipe is filled before the start, because uvloop fails if a process ends before it has read its input.
    source, sink = os.pipe()
    os.write(sink, text.encode())
    os.close(sink)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=source,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise UnavailableError("database", f"{name} cannot be run: {command[0]}: {error.strerror}") from error
    finally:
        os.close(source)
    try:
        async with asyncio.timeout(patience):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise UnavailableError("database", f"{name} took longer than {patience:g} seconds") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise UnavailableError("database", f"{name} failed with status {process.returncode}: {tail(output)}")
    return output.decode(errors="replace")


async def start_detached(command: Sequence[str], name: str, log_path: Path) -> int:
    """Start ``command`` as a process that outlives us, with its output appended to ``log_path``; return its id."""
    return int(await run([sys.executable, "-I", "-S", "-c", _DETACH, str(log_path), *command], name, 10))


def exists(pid: int) -> bool:
    """Say whether a process exists and has not ended.

    On Linux a zombie counts as ended, because it stays in the process table if no init process removes it.
    """
    if _HAS_PROC:
        return _read_proc(pid, "stat").rpartition(b") ")[2][:1] not in {b"", b"Z", b"X"}
    try:
        with suppress(PermissionError):
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def read_arguments(pid: int) -> bytes:
    """Return the command line of a process, with a space after each argument; empty if the process has ended.

    Every user may read it. In a container even root may not read the working directory of another user's process.
    """
    if _HAS_PROC:
        return _read_proc(pid, "cmdline").replace(b"\0", b" ")
    try:
        said = await run(["ps", "-ww", "-o", "args=", "-p", str(pid)], "ps", 5)
    except UnavailableError:
        return b""
    return said.strip().encode() + b" "


def tail(output: bytes) -> str:
    """Return the end of a program's output, for the text of an error."""
    return output.decode(errors="replace").strip()[-_TAIL_CHARACTERS:] or "it wrote nothing"


def _read_proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
