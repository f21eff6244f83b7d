"""Processes: running one to its end, bounded in time, starting one that outlives us, and asking after one."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from birthday.errors import UnavailableError

# Nothing of our own environment: PGDATA, PGOPTIONS, LC_MESSAGES and the like would change what the programs do.
_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_TAIL_CHARACTERS: Final = 2000
_HAS_PROC: Final = sys.platform == "linux"

# The process becomes nobody's child, in a session of its own: the Ctrl-C of our terminal does not reach it. And it
# inherits nothing: uvloop leaves descriptors open in what it starts, pipes among them whose end would never be seen.
_DETACH: Final = """
import os, subprocess, sys
os.umask(0o077)
with open(sys.argv[1], "ab") as log:
    process = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
print(process.pid)
"""


async def run(command: Sequence[str], name: str, patience: float, text: str = "") -> str:
    """Run ``command``, which errors call ``name``, with ``text`` (a few lines) as its input; return what it wrote.

    It is ended, with all its children, when it takes longer than ``patience`` seconds.

    Raises:
        UnavailableError: if it cannot be started, fails or is ended; the text has the end of what it wrote.
    """
    # A pipe that is filled before: uvloop trips over a process that ends without reading what is being written to it.
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
    """Start ``command``, with its output appended to ``log_path``, and return its process id; it outlives us.

    Raises:
        UnavailableError: if it cannot be started.
    """
    return int(await run([sys.executable, "-I", "-S", "-c", _DETACH, str(log_path), *command], name, 10))


def exists(pid: int) -> bool:
    """Say whether a process is there and has not ended; where nobody sees off orphans, their entries outlive them."""
    if _HAS_PROC:
        return _read_proc(pid, "stat").rpartition(b") ")[2][:1] not in {b"", b"Z", b"X"}
    try:
        with suppress(PermissionError):
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def read_arguments(pid: int) -> bytes:
    """Return the command line of a process, a space after each argument; nothing for one that has ended.

    Everybody may read it, while the working directory of another user's process is closed to root in a container.
    """
    if _HAS_PROC:
        return _read_proc(pid, "cmdline").replace(b"\0", b" ")
    try:
        said = await run(["ps", "-ww", "-o", "args=", "-p", str(pid)], "ps", 5)
    except UnavailableError:
        return b""
    return said.strip().encode() + b" "


def tail(output: bytes) -> str:
    """Return the end of what a program wrote, as one part of an error's text."""
    return output.decode(errors="replace").strip()[-_TAIL_CHARACTERS:] or "it wrote nothing"


def _read_proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
