"""Hosts with addresses of their own, in network namespaces on one switch, and what can happen to them.

Nothing outside the namespaces is changed, so every lab may use the same addresses. All processes of a host end with its
first one, which the kernel ends with us, however we end.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from birthday.embedded.process import exists
from tests.support.postgres import MEMORY, MEMORY_BYTES

PROGRAMS = ("etcd", "haproxy", "ip", "nft", "nsenter", "patroni", "pgbouncer", "rabbitmq-server", "setpriv", "unshare")
PREFIX = "birthday-ha-"
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/rabbitmq/bin"])
# Reaps what loses its parent, as the first process of a host must.
INIT = "ip link set lo up; sleep infinity & echo up; wait"
SILENCE = """
    table inet fault {
        chain incoming { type filter hook input priority 0; iif lo accept; FROM drop; }
        chain outgoing { type filter hook output priority 0; oif lo accept; TO drop; }
    }
"""
LOSS = """
    table inet fault {
        chain incoming { type filter hook input priority 0; iif lo accept; numgen random mod 100 < PERCENT drop; }
        chain outgoing { type filter hook output priority 0; oif lo accept; numgen random mod 100 < PERCENT drop; }
    }
"""


def why_impossible() -> str | None:
    """Return what keeps this machine from running hosts, None if nothing does."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    trial = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], check=False)
    if trial.returncode:
        return "this machine allows no network namespaces"
    missing = [program for program in PROGRAMS if shutil.which(program, path=SEARCHED) is None]
    return f"{', '.join(missing)} not found; `make test` installs them on Debian" if missing else None


class Host:
    """One host. Its processes see each other and nobody else; files are those of the machine."""

    def __init__(self, name: str, address: str, directory: Path) -> None:
        """Start the host without a network; ``directory`` is where its files may be."""
        self.name = name
        self.address = address
        self.directory = directory
        directory.mkdir()
        # The server may run as another user.
        directory.chmod(0o777)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._init = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),
                *("unshare", "--net", "--pid", "--ipc", "--fork", "--kill-child=KILL", "--mount-proc"),
                *("bash", "-c", INIT),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == b"up\n"
        self._init.stdout.close()
        self.pid = int(Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text())

    @property
    def command(self) -> tuple[str, ...]:
        """What runs a command with the network of this host, and is replaced by it."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", "--")

    def run(self, *command: str, stdin: str = "") -> None:
        """Run a command on the host to its end."""
        subprocess.run([*self.command, *command], input=stdin, text=True, check=True)

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a server, which ends with the host at the latest; it writes to ``log`` in the host's directory."""
        enter = ("nsenter", f"--target={self.pid}", "--net", "--pid", "--ipc", "--mount", "--")
        there = ("sh", "-c", 'cd "$0" && exec "$@"', str(self.directory))
        variables = {"PATH": SEARCHED, "HOME": str(self.directory), "LANG": "C.UTF-8"} | dict(environment or {})
        with (self.directory / "log").open("ab") as log:
            server = subprocess.Popen(
                [*enter, *there, *command], env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._processes.append(server)

    def kill(self, *parts: str) -> None:
        """End all processes of which the command line has one of ``parts``, the hard way."""
        found = [pid for pid, line in self._running() if any(part in line for part in parts)]
        assert found, f"no process of {self.name} is one of {parts}"
        for pid in found:
            with suppress(ProcessLookupError):  # One that has ended with its parent.
                os.kill(pid, signal.SIGKILL)

    def silence(self, *others: "Host") -> None:
        """Drop all packets from and to these hosts, or all others, without a word, until ``heal``."""
        addresses = ", ".join(other.address for other in others)
        source, target = (f"ip {end} {{ {addresses} }}" if others else "" for end in ("saddr", "daddr"))
        self.run("nft", "-f", "-", stdin=SILENCE.replace("FROM", source).replace("TO", target))

    def lose(self, percent: int) -> None:
        """Drop so many packets in a hundred, in each direction, until ``heal``."""
        self.run("nft", "-f", "-", stdin=LOSS.replace("PERCENT", str(percent)))

    def heal(self) -> None:
        """End the fault of the network, if there is one."""
        self.run("nft", "flush", "ruleset")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Give the sockets that this thread opens within the context, and its children, the network of this host."""
        with Path("/proc/thread-self/ns/net").open("rb") as before, Path(f"/proc/{self.pid}/ns/net").open("rb") as own:
            _enter(own.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def stop(self) -> None:
        """End the host with all its processes."""
        self._init.kill()
        for process in [self._init, *self._processes]:
            process.wait()

    def _running(self) -> Iterator[tuple[int, str]]:
        namespace = Path(f"/proc/{self.pid}/ns/net").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/net").readlink() == namespace:
                    yield int(process.name), (process / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue


class Network:
    """The switch, and all hosts on it. ``host`` adds one."""

    def __init__(self, directory: Path) -> None:
        """Start the switch; ``directory`` gets a directory for each host."""
        self._directory = directory
        self._hosts: list[Host] = []
        self._switch = Host("switch", "", directory / "switch")
        self._switch.run("ip", "link", "add", "switch", "up", "type", "bridge")

    def host(self, name: str, number: int) -> Host:
        """Add a host with the address 10.77.0.``number``."""
        host = Host(name, f"10.77.0.{number}", self._directory / name)
        self._hosts.append(host)
        port = f"port{number}"
        self._switch.run(
            *("ip", "link", "add", port, "master", "switch", "up", "type", "veth"),
            *("peer", "name", "eth0", "netns", str(host.pid)),
        )
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def heal(self) -> None:
        """End all faults of the network."""
        for host in self._hosts:
            host.heal()

    def stop(self) -> None:
        """End all hosts."""
        for host in [*self._hosts, self._switch]:
            host.stop()


@contextmanager
def network() -> Iterator[Network]:
    """Yield a network without hosts; its files are in memory where there is enough, and go with the context."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    parent = MEMORY if in_memory else Path(tempfile.gettempdir())
    for leftover in parent.glob(f"{PREFIX}*-*"):
        if not exists(int(leftover.name.split("-")[2])):
            shutil.rmtree(leftover, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    directory.chmod(0o711)
    net = Network(directory)
    try:
        yield net
    finally:
        net.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
