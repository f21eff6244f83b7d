"""The message service: an nginx that accepts everything, at once or after a while, and notes when each request came.

It takes a fifth of what the fastest worker takes, so it is not what is measured.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from benchmarks.busy import Measured, Reading
from benchmarks.measure import steady_rate
from benchmarks.processes import end, wait_until_listening

SERVICE_SECONDS = (0.0, 0.005, 0.05)
"""How long an answer can take."""
FLUSH_SECONDS = 0.02
POLL_SECONDS = 0.01
NO_KEY = "00000000-0000-0000-0000-000000000000"
LINE_BYTES = len(f"1796000000.000 {NO_KEY}\n")
"""All lines have one length, so that they are counted by the size of the file."""
MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")

_CONFIGURATION = Template("""\
load_module $module;
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events { worker_connections 16384; }
http {
    map $$http_idempotency_key $$key { default $$http_idempotency_key; "" $no_key; }
    log_format arrival '$$msec $$key';
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    $servers
}
""")
_SERVER = Template("""
    server {
        listen 127.0.0.1:$port backlog=4096;
        location = /send { $answer }
        location = /accepted {
            access_log arrivals arrival buffer=8k flush=${flush_ms}ms;
            return 200 '{}';
        }
    }
""")


class MessageService:
    """A running message service."""

    def __init__(self, version: str, log: Path, ports: Mapping[float, int]) -> None:
        """Know where it notes the arrivals, and where it listens, by how long an answer takes."""
        self.version = version
        self._log = log
        self._ports = ports
        self._delay_seconds = 0.0

    @property
    def url(self) -> str:
        """Where it is. The place depends on how long an answer takes, as ``reset`` was told."""
        return f"http://127.0.0.1:{self._ports[self._delay_seconds]}"

    def reset(self, delay_seconds: float = 0.0) -> None:
        """Forget what came; from now on, an answer takes so long: one of ``SERVICE_SECONDS``."""
        time.sleep(2 * FLUSH_SECONDS)
        os.truncate(self._log, 0)
        self._delay_seconds = delay_seconds

    def count(self) -> int:
        """Return how many messages have come."""
        return self._log.stat().st_size // LINE_BYTES

    def arrivals(self) -> list[float]:
        """Return when each came, by the clock of ``time.time``, to a millisecond."""
        return [arrived for arrived, _ in self._lines()]

    def arrivals_by_key(self) -> dict[str, float]:
        """Return when each came, by its Idempotency-Key."""
        return {key: arrived for arrived, key in self._lines()}

    def _lines(self) -> Iterator[tuple[float, str]]:
        for line in self._log.read_text().splitlines():
            answered, _, key = line.partition(" ")
            yield float(answered) - self._delay_seconds, key

    def wait_for(self, count: int, seconds: float = 120) -> list[float]:
        """Wait until so many have come, and return when each did.

        Raises:
            AssertionError: if they do not come in time.
        """
        deadline = time.monotonic() + seconds
        while (so_far := self.count()) < count:
            assert time.monotonic() < deadline, f"{so_far} of {count} messages arrived within {seconds:g} s"
            time.sleep(POLL_SECONDS)
        return self.arrivals()

    def measure(self, count: int) -> Measured:
        """Wait until so many have come. Return their rate, and what it took: from the first tenth to the last."""
        self.wait_for(count // 10)
        began, first = Reading.take(), self.count()
        self.wait_for(count - count // 10)
        ended, last = Reading.take(), self.count()
        return Measured(steady_rate(self.wait_for(count)), began.until(ended, last - first))


@contextmanager
def message_service() -> Iterator[MessageService]:
    """Run the message service until the context ends."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing; scripts/install-test-dependencies.sh installs it"
    assert MODULE.exists(), f"{MODULE} is missing; scripts/install-test-dependencies.sh installs it"
    ports = dict(zip(SERVICE_SECONDS, _free_ports(len(SERVICE_SECONDS)), strict=True))
    with TemporaryDirectory(prefix="birthday-nginx-") as name:
        directory = Path(name)
        servers = "".join(_server(port, seconds) for seconds, port in ports.items())
        (directory / "nginx.conf").write_text(_CONFIGURATION.substitute(module=MODULE, no_key=NO_KEY, servers=servers))
        process = subprocess.Popen([program, "-p", directory, "-c", "nginx.conf"], stdin=subprocess.DEVNULL)
        try:
            for port in ports.values():
                wait_until_listening(port)
            yield MessageService(_version(program), directory / "arrivals", ports)
        finally:
            end(process)


def _version(program: str) -> str:
    told = subprocess.run([program, "-v"], check=True, capture_output=True, text=True)
    return told.stderr.rpartition("/")[2].strip()


def _server(port: int, seconds: float) -> str:
    answer = f"echo_sleep {seconds}; echo_exec /accepted;" if seconds else "rewrite ^ /accepted last;"
    return _SERVER.substitute(port=port, answer=answer, flush_ms=round(1000 * FLUSH_SECONDS))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]
