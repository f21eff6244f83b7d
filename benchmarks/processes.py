"""The processes that a benchmark starts: the program itself, and what it is measured with and against."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

START_SECONDS = 60
STOP_SECONDS = 40
_SAMPLE = re.compile(r"^(\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


def fetch(url: str, method: str = "GET") -> bytes:
    """Return the body of an answer."""
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as answer:  # noqa: S310 - ours
        body: bytes = answer.read()
    return body


class Program:
    """A running ``birthday``, with its log in a file: nobody spends the machine's time on reading it meanwhile."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Know the process and its log; ``started`` waits for it."""
        self.process = process
        self.log = log
        self.url = ""

    def wait_until_started(self) -> None:
        """Wait for the line that says where it is.

        Raises:
            AssertionError: with its log, if it ends or takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.url:
            text = self.log.read_text()
            assert self.process.poll() is None, f"birthday did not start:\n{text}"
            assert time.monotonic() < deadline, f"birthday takes too long to start:\n{text}"
            for line in text.splitlines():
                if '"service.started"' in line:
                    self.url = str(json.loads(line)["health"]).removesuffix("/health")
            time.sleep(0.02)

    def metrics(self) -> dict[str, float]:
        """Return every sample of its metrics page, by name and labels."""
        page = fetch(f"{self.url}/metrics").decode()
        return {f"{match[1]}{match[2] or ''}": float(match[3]) for match in _SAMPLE.finditer(page)}

    def resident_bytes(self) -> int:
        """Return how much memory it takes now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def cpu_seconds(self) -> float:
        """Return how much of the processor's time it has taken so far."""
        # Its name, which may hold spaces, ends with the last parenthesis.
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        """Return how many file descriptors it holds."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@contextmanager
def birthday(role: str, **settings: str) -> Iterator[Program]:
    """Run the program with one or more roles until the context ends, as its users do: metrics and logs on."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PORT": "0"} | settings
    with TemporaryDirectory(prefix="birthday-log-") as directory:
        log = Path(directory) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "birthday", "--role", role],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        program = Program(process, log)
        try:
            program.wait_until_started()
            yield program
        finally:
            end(process)


@contextmanager
def module(name: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a module of ours until the context ends; yield the process and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", name, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        line = _stream(process).readline().strip()
        assert line, f"{name} printed nothing"
        yield process, line
    finally:
        end(process)
        _stream(process).close()


def run_module(name: str, *arguments: str, stdin: str = "") -> str:
    """Run a module of ours to its end, and return what it printed."""
    command = [sys.executable, "-m", name, *arguments]
    finished = subprocess.run(command, check=True, input=stdin, stdout=subprocess.PIPE, text=True, timeout=300)
    return finished.stdout


def wait_until_listening(port: int) -> None:
    """Wait until something takes connections at a port of this host.

    Raises:
        AssertionError: if nothing does in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.02)
        else:
            return


def _stream(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process, and kill it if that takes too long."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
