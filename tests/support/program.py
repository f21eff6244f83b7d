"""The program as its users run it: a process of its own, with an environment, signals and two streams."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

COMMAND = (sys.executable, "-m", "birthday")
NOBODY = 65534
USER_NAMESPACE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--mount", "--keep-caps")
READ_ONLY = """
mount --rbind / /
awk '{ print $5 }' /proc/self/mountinfo | while read -r mount; do mount -o remount,bind,ro "$mount" || true; done
exec "$@"
"""
NO_RIGHTS = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs")
ACCOUNTS = {
    "nobody": (*USER_NAMESPACE, *NO_RIGHTS),
    "nobody-read-only": (*USER_NAMESPACE, "sh", "-c", READ_ONLY, "sh", *NO_RIGHTS),
}
"""What runs a program as somebody who is not root, has no capability, and may write no file or those that we may."""
ACCOUNT = "TEST_ACCOUNT"
"""The variable that names one of these; without it the program runs as we do."""
HAS_ACCOUNTS = (
    shutil.which("unshare") is not None
    and subprocess.run([*ACCOUNTS["nobody"], "true"], check=False, capture_output=True).returncode == 0
)


def command() -> tuple[str, ...]:
    """Return what runs the program, as whom it is to run."""
    return (*ACCOUNTS.get(os.environ.get(ACCOUNT, ""), ()), *COMMAND)


@dataclass
class Program:
    """A running ``birthday``: what it has logged so far, and what it has printed."""

    process: Process
    events: list[dict[str, Any]] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    _heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """Where it serves HTTP."""
        [started] = [event for event in self.events if event["event"] == "service.started"]
        return str(started["health"]).removesuffix("/health")

    async def wait_for_event(self, name: str, seconds: float = 60) -> dict[str, Any]:
        """Return the first log event of that name, as soon as there is one.

        Raises:
            TimeoutError: if there is none within ``seconds``.
        """
        async with asyncio.timeout(seconds), self._heard:
            await self._heard.wait_for(lambda: any(event["event"] == name for event in self.events))
        return next(event for event in self.events if event["event"] == name)

    async def wait_for_line(self, part: str, seconds: float = 60) -> str:
        """Return the first line on standard output that contains ``part``, as soon as there is one.

        Raises:
            TimeoutError: if there is none within ``seconds``.
        """
        async with asyncio.timeout(seconds), self._heard:
            await self._heard.wait_for(lambda: any(part in line for line in self.printed))
        return next(line for line in self.printed if part in line)

    async def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and return the exit status; a second stop only returns it."""
        if self.process.returncode is None:
            self.process.send_signal(how)
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def listen(self) -> None:
        """Collect both streams until they end."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        printed, logged = self.process.stdout, self.process.stderr
        await asyncio.gather(self._collect(printed, log=False), self._collect(logged, log=True))

    async def _collect(self, stream: asyncio.StreamReader, *, log: bool) -> None:
        while line := (await stream.readline()).decode().rstrip("\n"):
            if log:
                self.events.append(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})
            else:
                self.printed.append(line)
            async with self._heard:
                self._heard.notify_all()


@asynccontextmanager
async def running(*arguments: str, within: Sequence[str] = (), **environment: str) -> AsyncIterator[Program]:
    """Run the program on a free port until the context ends, and wait until it has started.

    ``within`` is a command that becomes the program, such as one that gives it another network.

    Raises:
        TimeoutError: if it does not start; what it logged instead is in the notes of the error.
    """
    async with starting(*arguments, within=within, **environment) as program:
        try:
            await program.wait_for_event("service.started")
        except TimeoutError as error:
            error.add_note("\n".join(str(event) for event in program.events))
            raise
        yield program


@asynccontextmanager
async def starting(*arguments: str, within: Sequence[str] = (), **environment: str) -> AsyncIterator[Program]:
    """Run the program on a free port until the context ends, and wait for nothing."""
    env = _environment({"PORT": "0"} | environment)
    async with listening_to(*within, *command(), *arguments, env=env) as program:
        yield program


@asynccontextmanager
async def listening_to(*command: str, env: dict[str, str] | None = None) -> AsyncIterator[Program]:
    """Run a command that becomes the program until the context ends."""
    program = Program(await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=PIPE))
    listening = asyncio.create_task(program.listen())
    try:
        yield program
    finally:
        await program.stop()
        await listening


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    status: int
    out: str
    err: str


async def run(*arguments: str, stdin: str = "", **environment: str) -> Finished:
    """Run a command of the program to its end, which must come within 90 seconds: its own limits are 60."""
    process = await asyncio.create_subprocess_exec(
        *command(), *arguments, env=_environment(environment), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(90):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(errors="backslashreplace"), err.decode(errors="backslashreplace"))


def _environment(settings: dict[str, str]) -> dict[str, str]:
    """Return an environment with nothing of ours in it but ``settings``."""
    if ACCOUNT in os.environ:
        return {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | settings
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG") if name in os.environ}
    return kept | settings
