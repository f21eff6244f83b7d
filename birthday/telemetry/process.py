"""What this process uses, and its limits. The kernel is asked at each scrape, which takes less than a millisecond.

A limit is the smallest of the process's control groups (version 2 or 1) and of the machine.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


class ProcessFigures(Collector):
    """The figures of the running process that ``prometheus_client`` does not have."""

    def __init__(self, prefix: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        """Begin to count the uptime now; ``proc`` and ``cgroups`` are the kernel's file systems."""
        self._prefix = prefix
        self._proc = proc
        self._cgroups = cgroups
        self._started = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """Yield the figures that this system has."""
        times = os.times()
        yield CounterMetricFamily(
            f"{self._prefix}_cpu_seconds_total", "CPU time that the process has used.", times.user + times.system
        )
        memory = _sizes(self._proc / "self" / "status")
        yield from self._gauges(
            ("cpu_limit", "CPUs that the process may use: of its control group or the machine.", self._cpu_limit()),
            ("memory_used_bytes", "Resident memory of the process.", memory.get("VmRSS")),
            (
                "memory_limit_bytes",
                "Memory that the process may use: of its control group or the machine.",
                self._memory_limit(),
            ),
            ("heap_used_bytes", "Anonymous resident memory: what the program itself holds.", memory.get("RssAnon")),
            (
                "heap_size_bytes",
                "Private memory that the process has mapped to write to, resident or not.",
                memory.get("VmData"),
            ),
            ("process_uptime_seconds", "How long the process has been up.", time.monotonic() - self._started),
            ("system_load_average", "Load of the machine, averaged over a minute.", self._load_average()),
        )

    def _gauges(self, *figures: tuple[str, str, float | None]) -> Iterator[Metric]:
        for name, text, value in figures:
            if value is not None:
                yield GaugeMetricFamily(f"{self._prefix}_{name}", text, value)

    def _load_average(self) -> float | None:
        # os.getloadavg() raises where the file is hidden, as systemd's ProcSubset=pid does.
        averages = (_text(self._proc / "loadavg") or "").split()
        return float(averages[0]) if averages else None

    def _cpu_limit(self) -> float:
        limits = [float(_cpus())]
        for directory in self._groups("cpu"):
            quota, _, period = (_text(directory / "cpu.max") or "").partition(" ")
            if not period:
                quota = _text(directory / "cpu.cfs_quota_us") or ""
                period = _text(directory / "cpu.cfs_period_us") or ""
            if quota.isdigit() and period.isdigit() and int(period):
                limits.append(int(quota) / int(period))
        return min(limits)

    def _memory_limit(self) -> float | None:
        machine = _sizes(self._proc / "meminfo").get("MemTotal")
        limits = [] if machine is None else [machine]
        for directory in self._groups("memory"):
            limit = _text(directory / "memory.max") or _text(directory / "memory.limit_in_bytes")
            if limit and limit.isdigit():
                limits.append(float(limit))
        return min(limits, default=None)

    def _groups(self, controller: str) -> Iterator[Path]:
        """Yield the directories that may limit this process, from its own group up to the root."""
        for line in (_text(self._proc / "self" / "cgroup") or "").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = self._cgroups / controllers if controllers else self._cgroups
            group = root / path.lstrip("/")
            # In a container the path may be the host's, while the process's own group is mounted at the root.
            yield from (each for each in (group, *group.parents) if each.is_relative_to(root))


def _cpus() -> int:
    # Some systems lack the call, some sandboxes refuse it.
    with suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _sizes(file: Path) -> dict[str, float]:
    """Return the sizes in a file of lines like ``VmRSS:  1234 kB``, in bytes."""
    sizes = {}
    for line in (_text(file) or "").splitlines():
        name, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if unit == "kB":
            sizes[name] = int(number) * 1024.0
    return sizes


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return None
