"""Compiles templates outside of this process: what an author or an attacker has written may take half a second.

In a thread it would share the interpreter with the event loop, and each would keep the other waiting.
"""

import asyncio
import marshal
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from subprocess import Popen
from threading import Thread
from typing import Any, Final, Self

import structlog

from birthday.content import Template
from birthday.content.environment import Part
from birthday.core.template import Source
from birthday.errors import FieldError, InvalidInputError
from birthday.operations.templates import compiler
from birthday.operations.templates.compiler import HEAD_BYTES, NO_MEMORY, Limits, release

log = structlog.get_logger()

_PROGRAM: Final = (sys.executable, "-P", "-m", compiler.__name__)
_PATIENCE_SECONDS: Final = 30.0
"""How long an answer may take on a busy host. The limits of the program are far below."""
_ENDED_FROM_OUTSIDE: Final = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGALRM}
"""How the program ends if it is not the template's fault: killed, or idle at the moment at which it was asked."""
_TRIES: Final = 2


class CompilerEndedError(InvalidInputError):
    """The program ended while it compiled: because of the template, or by a fault of this host."""


@dataclass(frozen=True, slots=True)
class _Child:
    """The process, and our end of the socket that is its input and output."""

    process: Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> bytes:
        """Return the answer to a request; the first answer needs none."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            self.writer.write(request)
            await self.writer.drain()
            size = int.from_bytes(await self.reader.readexactly(HEAD_BYTES))
            return await self.reader.readexactly(size)

    async def end(self) -> int:
        """Kill the process and return its status: the one that it had already, if it has ended before."""
        self.process.kill()
        self.writer.close()
        return await asyncio.to_thread(self.process.wait)


class Compiler:
    """Compiles one template after the other, in a process that starts when it is needed and ends with ours.

    If there can be no such process, a thread of ours compiles: that keeps the event loop waiting, but loses nothing.
    """

    def __init__(self, limits: Limits | None = None, program: Sequence[str] = _PROGRAM) -> None:
        self._limits = limits or Limits()
        self._program = program
        self._turn = asyncio.Lock()
        self._child: _Child | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """The id of the process; None if none runs."""
        return None if self._child is None or self._child.process.poll() is not None else self._child.process.pid

    async def compile(self, source: Source, locale: str) -> Template:
        """Compile a template of a locale.

        Raises:
            InvalidInputError: with everything that is wrong with the source.
            CompilerEndedError: if it takes too long to compile. This is an InvalidInputError.
        """
        async with self._turn:
            try:
                answer = await self._ask(marshal.dumps(astuple(source)))
            except asyncio.CancelledError:
                # The next one must not get the answer to this one.
                await self.close()
                raise
            # In a thread, because the data of a language may have to be read.
            return await asyncio.to_thread(_make, source, locale, answer)

    async def close(self) -> int | None:
        """End the process, and return its status."""
        child, self._child = self._child, None
        return None if child is None else await child.end()

    async def _ask(self, request: bytes) -> bytes | None:
        """Return the answer of the program; None if it cannot be asked.

        Raises:
            CompilerEndedError: if the program ended because of the template.
        """
        for _ in range(_TRIES):
            child = await self._running()
            if child is None:
                return None
            try:
                return await child.ask(request)
            except (OSError, EOFError):
                status = await self.close()
            if status == -signal.SIGPROF:
                seconds = self._limits.cpu_seconds
                raise CompilerEndedError(FieldError("", f"compiling it takes more than {seconds:g} s"))
            if status == NO_MEMORY:
                raise CompilerEndedError(FieldError("", "compiling it takes too much memory"))
            if status not in _ENDED_FROM_OUTSIDE:
                raise CompilerEndedError(FieldError("", f"compiling it ended the compiler with the status {status}"))
        log.warning("template.compiler_lost", reason="it was killed, and so was the next one")
        return None

    async def _running(self) -> _Child | None:
        """Return the process, started if it does not run; None if it cannot be started."""
        if self.pid is not None:
            return self._child
        await self.close()
        try:
            self._child = await _start([*self._program, *map(str, self._limits)])
            if marshal.loads(await self._child.ask(b"")) == release():  # noqa: S302 - from our program
                return self._child
            reason = "Python or Jinja2 was replaced since this process started: restart it"
        except (OSError, EOFError) as error:
            reason = str(error)
        await self.close()
        log.warning("template.compiler_not_started", reason=reason)
        return None


async def _start(command: Sequence[str]) -> _Child:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = _spawn(command, theirs.fileno())
        except OSError:
            ours.close()
            raise
    return _Child(process, *await asyncio.open_unix_connection(sock=ours))


def _spawn(command: Sequence[str], standard: int) -> Popen[bytes]:
    """Start a process, in a session of its own: Ctrl-C in a terminal is meant for ours.

    uvloop would copy our memory map, which takes 15 ms.
    """
    process = Popen(command, stdin=standard, stdout=standard, start_new_session=True)  # noqa: S603 - our program
    # Whenever it ends, it leaves the process table.
    Thread(target=process.wait, name="template-compiler", daemon=True).start()
    return process


def _make(source: Source, locale: str, answer: bytes | None) -> Template:
    found: Any = None if answer is None else marshal.loads(answer)  # noqa: S302 - from our program
    if isinstance(found, list):
        raise InvalidInputError(*(FieldError(*field) for field in found))
    return Template(source, locale, None if found is None else {Part(part): code for part, code in found.items()})
