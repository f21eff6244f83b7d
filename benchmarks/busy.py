"""How busy processes are: the processor's time that those of a run take, each with everything that it has started."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

RUNNER = "runner"
ENDED = "ended"
"""What ended before the reading."""
PROGRAMS = {"nginx": "nginx", "beam.smp": "RabbitMQ", "epmd": "RabbitMQ", "postgres": "PostgreSQL"}
_TICKS = os.sysconf("SC_CLK_TCK")


class _Process(NamedTuple):
    parent: int
    program: str
    own: float
    """Seconds of its own."""
    ended: float
    """Seconds of its children that have ended."""


def data_prefix(runner: int) -> str:
    """Return how the name of the database's directory begins: PostgreSQL is no child of the run that started it."""
    return f"birthday-benchmarks-{runner}-"


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes took within a time, in seconds of a processor, and how much was done meanwhile."""

    seconds: float
    processor: Mapping[str, float] = field(default_factory=dict)
    count: int = 0

    def busy(self) -> dict[str, float]:
        """Return how much of a core each process took; what took next to nothing is left out."""
        shares = ((name, seconds / self.seconds) for name, seconds in self.processor.items())
        return {name: share for name, share in shares if share >= 0.005}

    def microseconds(self, *names: str) -> float:
        """Return what these processes took for each thing that was done, in microseconds; all of them without names."""
        return 1e6 * sum(self.processor.get(name, 0) for name in names or self.processor) / self.count


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, and what it took."""

    figure: float
    usage: Usage


@dataclass(frozen=True, slots=True)
class Reading:
    """What each process had taken at an instant, in seconds."""

    at: float
    processor: Mapping[str, float]

    @classmethod
    def take(cls, runner: int | None = None) -> Self:
        """Read now; ``runner`` is the process that started the others, this one by default."""
        return cls(time.monotonic(), processor_seconds(runner or os.getpid()))

    def until(self, later: "Reading", count: int = 0) -> Usage:
        """Return what was taken between this reading and a later one, while so much was done."""
        taken = {name: seconds - self.processor.get(name, 0) for name, seconds in later.processor.items()}
        return Usage(later.at - self.at, {name: seconds for name, seconds in taken.items() if seconds > 0}, count)


def processor_seconds(runner: int) -> dict[str, float]:
    """Return the seconds that the runner and the processes of its run have taken so far, by what they are."""
    processes = dict(_processes())
    children = defaultdict(list)
    for pid, process in processes.items():
        children[process.parent].append(pid)
    seconds = defaultdict(float, {RUNNER: processes[runner].own, ENDED: processes[runner].ended})

    def tree(pid: int) -> float:
        return processes[pid].own + processes[pid].ended + sum(map(tree, children[pid]))

    mark = data_prefix(runner)
    for pid, process in processes.items():
        if process.parent == runner:
            seconds[_name(process, _arguments(pid))] += tree(pid)
        elif process.program == "postgres" and any(mark in argument for argument in _arguments(pid)):
            seconds[PROGRAMS["postgres"]] += tree(pid)
    return dict(seconds)


def middle(usages: list[Usage]) -> dict[str, float]:
    """Return the median of how busy each process was."""
    shares = [usage.busy() for usage in usages]
    names = sorted({name for each in shares for name in each})
    return {name: median(each.get(name, 0) for each in shares) for name in names}


def _name(process: _Process, arguments: list[str]) -> str:
    """Return what a process is: a role of the program, a module of the benchmarks, a server, or else a peer."""
    if "--role" in arguments:
        return arguments[arguments.index("--role") + 1]
    if "-m" in arguments:
        return arguments[arguments.index("-m") + 1].removeprefix("benchmarks.").replace("_", " ")
    return PROGRAMS.get(process.program, "peer")


def _processes() -> Iterator[tuple[int, _Process]]:
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                stat = (directory / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The name, which may hold spaces, is in parentheses.
            before, _, after = stat.rpartition(")")
            fields = after.split()
            own, ended = (sum(map(int, fields[first : first + 2])) / _TICKS for first in (11, 13))
            yield int(directory.name), _Process(int(fields[1]), before.partition("(")[2], own, ended)


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
