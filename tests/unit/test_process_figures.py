"""What a process uses and may use, as the kernel tells it in files: real ones, and copies of other machines'."""

from pathlib import Path

import pytest

from birthday.telemetry.process import ProcessFigures

MEBIBYTE = 1024 * 1024


def figures(root: Path) -> dict[str, float]:
    """Return what is collected from a copy of /proc and /sys/fs/cgroup under ``root``."""
    collector = ProcessFigures("x", root / "proc", root / "cgroup")
    return {sample.name: sample.value for family in collector.collect() for sample in family.samples}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a copy of a machine with 1024 MiB of memory and no limits."""
    process = tmp_path / "proc" / "self"
    process.mkdir(parents=True)
    (tmp_path / "proc" / "loadavg").write_text("0.50 0.25 0.10 2/300 4567\n")
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:        1048576 kB\nMemFree: 1 kB\n")
    (process / "status").write_text(
        "Name:\tbirthday\nVmRSS:\t   20480 kB\nRssAnon:\t   10240 kB\nVmData:\t   30720 kB\nThreads:\t4\n"
    )
    (process / "cgroup").write_text("0::/\n")
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    """Write files of control groups."""
    for name, text in files.items():
        (root / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cgroup" / name).write_text(text)


def test_without_limits_the_machine_is_the_limit(machine: Path) -> None:
    """All of the machine's memory and processors may be used."""
    found = figures(machine)
    assert found["x_memory_limit_bytes"] == 1024 * MEBIBYTE
    assert found["x_cpu_limit"] >= 1
    assert found["x_memory_used_bytes"] == 20 * MEBIBYTE
    assert found["x_heap_used_bytes"] == 10 * MEBIBYTE
    assert found["x_heap_size_bytes"] == 30 * MEBIBYTE
    assert found["x_system_load_average"] == 0.5


def test_what_a_sandbox_hides_is_a_gap(machine: Path) -> None:
    """As with ``ProcSubset=pid`` of systemd: the load and the memory of the machine are missing, the rest is there."""
    (machine / "proc" / "loadavg").unlink()
    (machine / "proc" / "meminfo").unlink()
    found = figures(machine)
    assert found.keys() & {"x_system_load_average", "x_memory_limit_bytes"} == set()
    assert found["x_memory_used_bytes"] == 20 * MEBIBYTE


def test_limits_of_version_2_are_those_of_every_group_above(machine: Path) -> None:
    """The tightest limit on the way up to the root counts, and ``max`` is none."""
    (machine / "proc" / "self" / "cgroup").write_text("0::/pods/one\n")
    write(
        machine,
        {
            "pods/one/cpu.max": "max 100000",
            "pods/one/memory.max": "max",
            "pods/cpu.max": "50000 100000",
            "pods/memory.max": str(256 * MEBIBYTE),
        },
    )
    found = figures(machine)
    assert found["x_cpu_limit"] == 0.5
    assert found["x_memory_limit_bytes"] == 256 * MEBIBYTE


def test_limits_of_version_1_are_understood(machine: Path) -> None:
    """Each controller has a tree of its own; a quota of -1 and an enormous number of bytes are no limits."""
    (machine / "proc" / "self" / "cgroup").write_text("4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n")
    write(
        machine,
        {
            "memory/docker/abc/memory.limit_in_bytes": str(128 * MEBIBYTE),
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "25000",
            "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    found = figures(machine)
    assert found["x_cpu_limit"] == 0.25
    assert found["x_memory_limit_bytes"] == 128 * MEBIBYTE


def test_a_container_that_sees_its_own_group_as_the_root(machine: Path) -> None:
    """The path may be the host's, which is not mounted: then what is mounted counts."""
    (machine / "proc" / "self" / "cgroup").write_text("0::/kubepods/burstable/pod1\n")
    write(machine, {"memory.max": str(64 * MEBIBYTE)})
    assert figures(machine)["x_memory_limit_bytes"] == 64 * MEBIBYTE


def test_a_system_without_proc_shows_what_it_has(tmp_path: Path) -> None:
    """There are no made-up numbers where the kernel tells none."""
    found = figures(tmp_path)
    assert "x_memory_used_bytes" not in found
    assert "x_memory_limit_bytes" not in found
    assert found["x_cpu_seconds_total"] > 0
    assert found["x_process_uptime_seconds"] >= 0


def test_this_process_is_measured() -> None:
    """On the machine that runs the tests, all figures are there and plausible."""
    collector = ProcessFigures("x")
    found = {sample.name: sample.value for family in collector.collect() for sample in family.samples}
    assert 0 < found["x_heap_used_bytes"] <= found["x_memory_used_bytes"] < found["x_memory_limit_bytes"]
    assert found["x_heap_used_bytes"] < found["x_heap_size_bytes"]
