"""The program that compiles templates for the process that has started it, see ``compiling.py``.

It reads sources on standard input, and answers on standard output with code or with what is wrong. It renders nothing.
It ends when its input ends, so it never outlives the other process, and when it has had nothing to do for long.
"""

import marshal
import os
import resource
import signal
import sys
from importlib.metadata import version
from typing import Any, Final, NamedTuple

from birthday.content.compiling import compile_parts
from birthday.core.template import Source
from birthday.errors import InvalidInputError

HEAD_BYTES: Final = 4
"""What stands before an answer: its length."""
NO_MEMORY: Final = 3
"""The status with which the program ends if even a message could not be written for lack of memory."""
_NICE: Final = 10
"""Our processor time is less urgent than that of the process that delivers."""
_LEFT_TO_PARENT: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""What a terminal or a service manager sends to all processes of a service: the other process decides what follows."""


class Limits(NamedTuple):
    """What compiling one template may take, and how long the program waits for the next one.

    Processor time, because a busy host must not refuse what is accepted elsewhere. What is accepted takes 30 ms, and a
    source that is made to last half a second.
    """

    cpu_seconds: float = 2
    memory_bytes: int = 256 * 1024 * 1024
    idle_seconds: float = 60


def release() -> tuple[str, ...]:
    """Return what tells whether both processes understand each other's code."""
    return sys.version, version("jinja2")


def main(limits: Limits) -> None:
    """Compile until there is nothing more to compile. At a limit of time, a signal ends the process."""
    for number in _LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    _answer(release())
    _limit_memory(limits.memory_bytes)
    try:
        _serve(limits)
    except MemoryError:
        os._exit(NO_MEMORY)


def _serve(limits: Limits) -> None:
    while True:
        signal.setitimer(signal.ITIMER_REAL, limits.idle_seconds)
        try:
            source = Source(*marshal.load(sys.stdin.buffer))  # noqa: S302 - from the process that has started us
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
        answer = _compile(source)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _answer(answer)


def _compile(source: Source) -> dict[str, Any] | list[tuple[str, str]]:
    """Return the code of each part, or each pointer with what is wrong there."""
    try:
        return {part.value: code for part, code in compile_parts(source).items()}
    except InvalidInputError as error:
        return [(field.pointer, field.detail) for field in error.fields]
    except MemoryError:
        return [("", "compiling it takes too much memory")]


def _answer(answer: Any) -> None:  # noqa: ANN401 - what ``marshal`` takes
    data = marshal.dumps(answer)
    try:
        sys.stdout.buffer.write(len(data).to_bytes(HEAD_BYTES) + data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The other process has ended. Python would flush once more at its own end.
        os._exit(0)


def _limit_memory(size: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if most == resource.RLIM_INFINITY else min(size, most), most))


if __name__ == "__main__":
    main(Limits(float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
