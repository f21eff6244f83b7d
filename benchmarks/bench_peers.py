"""Others who do the same job on the same servers: take a job, POST, mark it done; and APIs that store a user.

They live in a virtual environment of their own, whose interpreter ``--peers`` names: ``make bench-peers`` makes it.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_api import Servers, race, servers
from benchmarks.bench_worker import Race, written
from benchmarks.busy import Measured
from benchmarks.measure import Comparison, compare
from benchmarks.message_service import MessageService
from benchmarks.processes import wait_until_listening
from benchmarks.scale import Run, Scale
from benchmarks.targets import PEER_APIS, PEER_QUEUES, Target

__all__ = ["servers"]

HERE = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: how to run it, with which servers."""

    python: Path
    name: str
    environment: dict[str, str]

    def run(self, *arguments: str) -> None:
        """Run a command of it to its end."""
        subprocess.run(self._command(arguments), cwd=HERE, env=self._environment(), check=True, timeout=120)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[None]:
        """Run it, with all the processes that it starts, until the context ends."""
        process = subprocess.Popen(self._command(arguments), cwd=HERE, env=self._environment(), start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        if (HERE / f"with_{self.name}.js").exists():
            return [shutil.which("node") or pytest.skip("node is missing"), f"with_{self.name}.js", *arguments]
        return [str(self.python), f"with_{self.name}.py", *arguments]

    def _environment(self) -> dict[str, str]:
        modules = {"PYTHONPATH": str(HERE), "NODE_PATH": str(self.python.parent.parent / "node_modules")}
        return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | modules | self.environment


def _python(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--peers")).absolute()


@pytest.mark.peers
@pytest.mark.parametrize("target", PEER_QUEUES, ids=lambda target: target.name.rpartition(" ")[2])
def test_queue(
    target: Target,
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    scale: Scale,
    run: Run,
    service: MessageService,
    database_url: str,
    queue_url: str,
) -> None:
    """One worker process of ours, with all its guarantees, against a peer as its documentation sets it up."""
    environment = {"DATABASE_URL": database_url, "RABBITMQ_URL": queue_url, "MESSAGE_SERVICE_URL": service.url}
    peer = Peer(_python(request), target.name.rpartition(" ")[2], environment)
    ours = Race(run, service, database_url, queue_url, scale.messages)
    # A short run of a fast peer would be over before it has to record what it did.
    jobs = scale.messages if peer.name == "pgqueuer" else scale.messages // 4

    def theirs() -> Measured:
        service.reset()
        peer.run("enqueue", str(jobs))
        before = run(written(database_url))
        with peer.running("work"):
            measured = service.measure(jobs)
            return replace(measured, wal_bytes=(run(written(database_url)) - before) / jobs)

    compare(benchmark, Comparison(target, "jobs/s"), ours.worker, theirs, scale.rounds)


@pytest.mark.peers
@pytest.mark.parametrize("target", PEER_APIS, ids=lambda target: target.name)
def test_api(
    target: Target, benchmark: BenchmarkFixture, request: pytest.FixtureRequest, scale: Scale, servers: Servers
) -> None:
    """Creating or reading users with everything that our API does, against a peer that does nothing else."""
    _, kind, _, name = target.name.split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    peer = Peer(_python(request), name, {"MESSAGE_SERVICE_URL": "", "DATABASE_URL": ""})
    with peer.running(servers.database, str(port)):
        wait_until_listening(port)
        race(benchmark, scale, servers, Comparison(target, "requests/s"), kind, port)
