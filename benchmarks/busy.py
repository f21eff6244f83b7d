"""How busy processes are: the processor's time that those of a run take, each with everything that it has started.

``starved`` says how long their main threads waited for a core.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

RUNNER = "runner"
ENDED = "ended"
"""What ended before the reading."""
SERVERS = ("nginx", "http load", "paced load")
"""What takes messages and makes load, for both sides of a comparison."""
APPARATUS = (RUNNER, ENDED, "slow link", *SERVERS)
"""What is there only to measure."""
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
    starved: Mapping[str, float] = field(default_factory=dict)
    """Seconds for which their main threads had work and no core, because another process had it."""

    def busy(self) -> dict[str, float]:
        """Return how much of a core each process took; what took next to nothing is left out."""
        shares = ((name, seconds / self.seconds) for name, seconds in self.processor.items())
        return {name: share for name, share in shares if share >= 0.005}

    def microseconds(self) -> dict[str, float]:
        """Return what each process took for each thing that was done, without those that only measure."""
        taken = ((name, seconds) for name, seconds in self.processor.items() if name not in APPARATUS)
        return {name: 1e6 * seconds / self.count for name, seconds in taken if self.count}


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, and what it took."""

    figure: float
    usage: Usage
    wal_bytes: float = 0
    """What PostgreSQL wrote to its log for each thing that was done, if that was asked."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What each process had taken at an instant, in seconds."""

    at: float
    processor: Mapping[str, float]
    starved: Mapping[str, float]

    @classmethod
    def take(cls, runner: int | None = None) -> Self:
        """Read now; ``runner`` is the process that started the others, this one by default."""
        return cls(time.monotonic(), *processor_seconds(runner or os.getpid()))

    def until(self, later: "Reading", count: int = 0) -> Usage:
        """Return what was taken between this reading and a later one, while so much was done."""
        processor = _since(self.processor, later.processor)
        return Usage(later.at - self.at, processor, count, _since(self.starved, later.starved))


def _since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    taken = {name: seconds - before.get(name, 0) for name, seconds in after.items()}
    return {name: seconds for name, seconds in taken.items() if seconds > 0}


def processor_seconds(runner: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds that the runner and its processes have taken, and have waited for a core, by what they are."""
    processes = dict(_processes())
    children = defaultdict(list)
    for pid, process in processes.items():
        children[process.parent].append(pid)
    seconds = defaultdict(float, {RUNNER: processes[runner].own, ENDED: processes[runner].ended})
    starved: defaultdict[str, float] = defaultdict(float)

    def tree(pid: int) -> float:
        return processes[pid].own + processes[pid].ended + sum(map(tree, children[pid]))

    mark = data_prefix(runner)
    for pid, process in processes.items():
        if process.parent == runner:
            name = _name(process, _arguments(pid))
            seconds[name] += tree(pid)
            starved[name] += _starved(pid)
        elif process.program == "postgres" and any(mark in argument for argument in _arguments(pid)):
            seconds[PROGRAMS["postgres"]] += tree(pid)
    return dict(seconds), dict(starved)


def server_seconds(backend: int) -> float:
    """Return the seconds that the database server of a backend has taken with all its processes."""
    processes = dict(_processes())
    server = processes[backend].parent
    return sum(one.own + one.ended for pid, one in processes.items() if server in {pid, one.parent})


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure; one that is missing is 0."""
    names = sorted({name for each in rounds for name in each})
    return {name: median(each.get(name, 0) for each in rounds) for name in names}


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


def _starved(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
