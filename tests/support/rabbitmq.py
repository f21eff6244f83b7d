"""A private RabbitMQ server for the test session, and a fresh virtual host for each test that asks for one."""

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

SCRIPT_DIRECTORIES = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/opt/homebrew/opt/rabbitmq/sbin")
"""Where the server's own script is. The one that Debian puts on the PATH insists on the system user ``rabbitmq``."""

START_SECONDS = 100
POLL_SECONDS = 0.05


class RabbitMQServer:
    """One RabbitMQ node of our own: loopback ports that were free, data in a temporary directory, management on.

    ``kill`` and ``start`` in turn are a crash and a recovery: ports and data stay the same.
    """

    def __init__(self, script: str, directory: Path) -> None:
        """Choose the ports and write the configuration; nothing runs yet."""
        self._script = script
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self.port, self.management_port, self._dist_port, self._epmd_port = _free_ports(4)
        (directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "management.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self.management_port}\n"
            "collect_statistics_interval = 1000\n"
            "log.file.level = warning\n"
        )

    def join(self, first: "RabbitMQServer") -> None:
        """Be a node of the cluster of ``first``, which runs already, from the first start on."""
        self._epmd, self._epmd_port = first._epmd, first._epmd_port  # noqa: SLF001 - of the same class
        shutil.copy(first._directory / ".erlang.cookie", self._directory)  # noqa: SLF001
        with (self._directory / "rabbitmq.conf").open("a") as configuration:
            configuration.write("cluster_formation.peer_discovery_backend = classic_config\n")
            for number, node in enumerate((first, self), 1):
                configuration.write(f"cluster_formation.classic_config.nodes.{number} = {node.name}\n")

    def start(self) -> None:
        """Start the node and return once it takes connections."""
        environment = self._environment()
        if self._epmd is None:
            # Started in the foreground by ourselves: the one that Erlang would start outlives the node.
            self._epmd = self._run([_find("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1"], environment)
        self._process = self._run([self._script], environment)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                output = (self._directory / "output.log").read_text(errors="replace")[-4000:]
                self.stop()
                pytest.fail(f"rabbitmq-server did not start within {START_SECONDS} s; its output was:\n{output}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End the node the hard way, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End the node and its port mapper; idempotent. Its data is temporary, so there is nothing to shut down."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None

    def freeze(self) -> None:
        """Stop the node in its tracks: connections stay open and nothing is answered, until ``thaw``."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            # On a busy machine, a node goes on for some milliseconds after the signal: long enough for an answer.
            os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let a frozen node go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Crash the node and start it again on the same data."""
        self.kill()
        self.start()

    @property
    def name(self) -> str:
        """The name of the node within its cluster."""
        return f"birthday-{self.port}@localhost"

    def url(self, vhost: str) -> str:
        """Return the AMQP URL of a virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def create_vhost(self, vhost: str) -> None:
        """Create a virtual host that the URL's user may do anything in."""
        self.manage("PUT", f"vhosts/{vhost}")
        self.manage("PUT", f"permissions/{vhost}/guest", {"configure": ".*", "write": ".*", "read": ".*"})

    def delete_vhost(self, vhost: str) -> None:
        """Remove a virtual host with everything in it; its connections are closed."""
        self.manage("DELETE", f"vhosts/{vhost}")

    def rabbitmqadmin(self) -> bytes:
        """Return the program ``rabbitmqadmin`` as the management plugin hands it out."""
        where = f"http://127.0.0.1:{self.management_port}/cli/rabbitmqadmin"
        with urllib.request.urlopen(where, timeout=60) as response:
            program: bytes = response.read()
        return program

    def manage(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Call the management HTTP API and return the decoded answer, None when it is empty."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.management_port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - our own server
            answer = response.read()
        return json.loads(answer) if answer else None

    def _environment(self) -> dict[str, str]:
        directory = str(self._directory)
        return {
            "PATH": os.environ["PATH"],
            # The Erlang cookie is made and kept in the home directory.
            "HOME": directory,
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{directory}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{directory}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{directory}/data",
            "RABBITMQ_LOG_BASE": f"{directory}/log",
            "RABBITMQ_PID_FILE": f"{directory}/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Makes the script become the node instead of waiting for it, so that our child's process id is the node's.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self._directory / "output.log").open("ab") as output:
            return subprocess.Popen(
                command, env=environment, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def _is_up(self) -> bool:
        try:
            self.manage("GET", "overview")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
        return True


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQServer]:
    """Run one private node for the whole session. A test that kills it starts it again."""
    directory = Path(tempfile.mkdtemp(prefix="birthday-rabbitmq-"))
    server = RabbitMQServer(_find("rabbitmq-server"), directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def rabbitmq_cluster() -> Iterator[list[RabbitMQServer]]:
    """Run three nodes of one cluster for the session. A node that is frozen for less than 45 s stays in it."""
    script = _find("rabbitmq-server")
    directories = [Path(tempfile.mkdtemp(prefix="birthday-rabbitmq-")) for _ in range(3)]
    first, *others = nodes = [RabbitMQServer(script, directory) for directory in directories]
    try:
        first.start()
        for node in others:
            node.join(first)
            node.start()
        yield nodes
    finally:
        for node in reversed(nodes):
            node.stop()
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    """Return the URL of a virtual host that is new and empty, and is removed after the test."""
    vhost = f"test-{secrets.token_hex(6)}"
    rabbitmq_server.create_vhost(vhost)
    yield rabbitmq_server.url(vhost)
    rabbitmq_server.delete_vhost(vhost)


def _find(program: str) -> str:
    found = shutil.which(program, path=os.pathsep.join([*SCRIPT_DIRECTORIES, os.environ["PATH"]]))
    if found is None:
        pytest.fail(f"{program} was not found; `make test` installs it (Debian package rabbitmq-server)")
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
