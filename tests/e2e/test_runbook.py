"""``docs/runbook.md``, typed: its commands, its SQL and its queries, on a running installation with some troubles.

What an operator has to adapt is adapted here as well, and nothing else:

========================================  ==========================================================
in the runbook                            here
========================================  ==========================================================
API, PROMETHEUS, ALERTMANAGER, AUTH       servers of the test, and a file with a key
``~/.pg_service.conf``, ``~/.pgpass``     files in a home directory of the test, for a user who needs a password
rabbitmqadmin's configuration             as above
``birthday ...`` in a container           the program with the settings of the installation
``logs ROLE``                             the LOG_FILE of the one process that has all roles
``watch -n N COMMAND``                    the command, once
``make TARGET``                           what make would do
``birthday migrate --rollback``           only parsed, in ``tests/unit/test_runbook_text.py``
commands of other infrastructure          as above: their syntax
========================================  ==========================================================
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
import asyncpg
import pytest

from tests.support.message_service import Answer, Behaviour, Fault, MessageService, Received
from tests.support.postgres import PostgresServer, postgres_programs
from tests.support.product import eventually
from tests.support.program import COMMAND
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.rabbitmq import RabbitMQServer
from tests.support.runbook import (
    RUNBOOK,
    Block,
    Kind,
    classify,
    queries,
    read_blocks,
    read_spans,
    shell_statements,
    sql_statements,
)

ROOT = RUNBOOK.parents[1]
OPERATORS_SQL = ROOT / "tests" / "data" / "operators.sql"
SECRET = "open-sesame"
OPERATOR = "oncall"
RESTORED = "birthday_scheduler_restored"
ONLY_PARSED = re.compile(r"birthday migrate --rollback")
ALONE = re.compile(r"VACUUM|REINDEX|.*\bCONCURRENTLY\b", re.IGNORECASE)
"""Statements that cannot be part of a transaction."""

QUIET = {
    r"(export |\w+=|\w+\(\) )|.* > [^|]+$": "it prints nothing by its nature",
    r"(createdb|pg_restore|sleep) ": "it says nothing when all is well",
    r".*birthday import ": "it says what it did on standard error",
    r"promql '[^']* (== 0|> 0)'$": "it names what is wrong, and nothing is",
    r"promql 'max\(birthday_scheduler_forecast_": "nothing fell due, and nothing had been measured, when it started",
    r"promql .*\[(2h:1m|7d:5m)\]": "its steps are minutes, and this installation is younger",
    r"logs .*circuit\.": "the circuit has not opened",
    r"logs .*worker\.resource_": "the host lacks nothing",
    r".* --list expired --json": "nothing has expired",
    r".*outcome unknown": "no e-mail was sent",
    r"promql .*render_failures": "no template has failed",
}
YOUNG = re.compile(r"offset 1d")
"""Queries that look further back than this installation is old."""


def blocks(language: str) -> list[Block]:
    """Return the examples in one language."""
    return [block for block in read_blocks(RUNBOOK.read_text()) if block.language == language]


def is_tried(statement: str) -> bool:
    """Say whether a statement is run, rather than only checked."""
    return classify(statement) in {Kind.OURS, Kind.MAKE} and not ONLY_PARSED.search(statement)


def may_be_quiet(statement: str) -> bool:
    """Say whether a statement is right although it printed nothing."""
    return any(re.match(pattern, statement) for pattern in QUIET)


@dataclass(frozen=True, slots=True)
class Typed:
    """A statement that was run: its exit status, what it printed, and what it complained about."""

    statement: str
    status: int
    out: str
    err: str

    @property
    def is_right(self) -> bool:
        """Say whether it did what an operator expects of it."""
        return self.status == 0 and (bool(self.out.strip()) or may_be_quiet(self.statement))


@dataclass(frozen=True, slots=True)
class Desk:
    """Where an operator sits: a shell whose environment is that of the installation, and whose home is a test's."""

    home: Path
    environment: dict[str, str]
    beginning: str

    async def type(self, statements: Iterable[str]) -> list[Typed]:
        """Run statements one after the other in one shell, and return what came of each."""
        listed = list(statements)
        run = self.home / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        lines = [self.beginning]
        for number, statement in enumerate(listed):
            lines += [f"{{\n{statement}\n}} >{run}/{number}.out 2>{run}/{number}.err </dev/null"]
            lines += [f"echo $? >{run}/{number}.status"]
        shell = await asyncio.create_subprocess_exec(
            "bash", "-o", "pipefail", "-c", "\n".join(lines), cwd=self.home, env=self.environment
        )
        async with asyncio.timeout(60):
            await shell.wait()
        return [
            Typed(
                statement,
                int((run / f"{number}.status").read_text()),
                (run / f"{number}.out").read_text(),
                (run / f"{number}.err").read_text(),
            )
            for number, statement in enumerate(listed)
        ]


@dataclass(frozen=True, slots=True)
class Installation:
    """A program with all roles that has been through some troubles, and who watches it."""

    url: str
    desk: Desk
    prometheus: Prometheus
    service: MessageService
    pool: asyncpg.Pool

    async def refuse_one(self) -> None:
        """Make sure that there is a dead letter: one more, because an earlier command may have taken them all away."""
        before = await self._count_failed()
        await post_users(self.url, "Refused")

        async def has_failed() -> bool:
            return await self._count_failed() > before

        await eventually(has_failed, "one more has failed")
        await eventually(self._has_dead_letter, "there is a dead letter")

    async def _count_failed(self) -> int:
        count: int = await self.pool.fetchval("SELECT count(*) FROM message_logs WHERE status = 'failed'")
        return count

    async def _has_dead_letter(self) -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            depth = re.search(r"^birthday_scheduler_dlq_depth (\S+)$", await response.text(), re.MULTILINE)
        return depth is not None and float(depth[1]) > 0


async def post_users(url: str, *names: str) -> None:
    """Create users whose birthday is today, and whose last name tells the message service what to do."""
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for name in names:
            body = {
                "firstName": "Ada",
                "lastName": name,
                "email": f"{os.urandom(6).hex()}@example.com",
                "dateOfBirth": f"1992-{datetime.now(UTC):%m-%d}",
                "timezone": "UTC",
            }
            async with session.post(f"{url}/users", json=body) as response:
                assert response.status == 201, await response.text()


async def ask(url: str, path: str, key: str | None = None) -> int | None:
    """GET something, and return the status; None if there is nobody."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url + path) as response:
            return response.status
    except aiohttp.ClientConnectionError:
        return None


def troubles() -> Behaviour:
    """Refuse users called Refused for good; fail or hang for those called Flaky or Slow, once; accept the rest."""
    seen: set[str | None] = set()

    def behave(received: Received) -> Answer:
        text = received.body.decode()
        first = received.key not in seen
        seen.add(received.key)
        if "Refused" in text:
            return Answer(status=422)
        if first and "Flaky" in text:
            return Answer(status=503)
        return Answer(fault=Fault.HANG if first and "Slow" in text else None)

    return behave


@asynccontextmanager
async def started(settings: dict[str, str]) -> AsyncIterator[str]:
    """Run the program, whose log is a file, until the context ends; yield where it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = await asyncio.create_subprocess_exec(
        *COMMAND, env=settings | {"PORT": str(port)}, stdout=DEVNULL, stderr=DEVNULL
    )
    try:

        async def is_ready() -> bool:
            assert process.returncode is None, "the program has ended"
            return await ask(url, "/ready") == 200

        await eventually(is_ready, "the program is ready", 60)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def running_alertmanager(directory: Path) -> AsyncIterator[str]:
    """Run an Alertmanager, with an alert, until the context ends; yield where it answers."""
    (directory / "alertmanager.yml").write_text("route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n")
    url = f"http://127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        "prometheus-alertmanager",
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    alert = {"labels": {"alertname": "Drill", "severity": "warning"}, "annotations": {"summary": "a drill"}}

    async def takes_an_alert() -> bool:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{url}/api/v2/alerts", json=[alert]) as response,
            ):
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    try:
        await eventually(takes_an_alert, "Alertmanager answers", 60)
        yield url
    finally:
        process.terminate()
        await process.wait()


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def make_home(home: Path, database_url: str, vhost: str, management_port: int) -> None:
    """Write the files that an operator has once: the ones that keep secrets off the command line."""
    database = urlsplit(database_url)
    host, _, port = database.netloc.rpartition("@")[2].rpartition(":")
    known = {"host": unquote(host), "port": port, "user": OPERATOR, "password": SECRET}
    (home / ".pg_service.conf").write_text(
        f"[birthday-scheduler]\nhost={known['host']}\nport={port}\ndbname={database.path.strip('/')}\nuser={OPERATOR}\n"
    )
    [line] = [span for span in read_spans(RUNBOOK.read_text()) if re.fullmatch("host:port:.*:user:password", span)]
    (home / ".pgpass").write_text(":".join(known.get(word, word) for word in line.split(":")) + "\n")
    (home / ".pgpass").chmod(0o600)
    (home / ".rabbitmqadmin.conf").write_text(
        f"[default]\nhostname = 127.0.0.1\nport = {management_port}\nvhost = {vhost}\n"
    )
    (home / "auth-header").write_text(f"Authorization: Bearer {SECRET}\n")
    (home / "scripts").symlink_to(ROOT / "scripts")
    (home / "Makefile").symlink_to(ROOT / "Makefile")


@pytest.fixture
async def operator(database_url: str) -> AsyncIterator[str]:
    """Let the server admit an operator, by password only; return the name."""
    connection = await asyncpg.connect(database_url)
    rules = Path(await connection.fetchval("SHOW hba_file"))
    before = await asyncio.to_thread(rules.read_text)
    await asyncio.to_thread(rules.write_text, f"local all {OPERATOR} scram-sha-256\n{before}")
    await connection.execute(f"CREATE ROLE {OPERATOR} LOGIN SUPERUSER PASSWORD '{SECRET}'; SELECT pg_reload_conf()")
    await connection.close()
    yield OPERATOR
    await asyncio.to_thread(rules.write_text, before)
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"DROP OWNED BY {OPERATOR}; DROP ROLE {OPERATOR}; SELECT pg_reload_conf()")
    await connection.close()


@pytest.fixture
async def installation(
    postgres_server: PostgresServer,
    operator: str,
    database_url: str,
    pool: asyncpg.Pool,
    rabbitmq_server: RabbitMQServer,
    rabbitmq_url: str,
    tmp_path: Path,
) -> AsyncIterator[Installation]:
    """Users are greeted, one is refused, one is late; the database was away for a moment; somebody had no key."""
    assert operator == OPERATOR
    make_home(tmp_path, database_url, urlsplit(rabbitmq_url).path.strip("/"), rabbitmq_server.management_port)
    program = rabbitmq_server.rabbitmqadmin()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rabbitmqadmin").write_bytes(program)
    (tmp_path / "bin" / "rabbitmqadmin").chmod(0o755)
    own = {name: os.environ[name] for name in ("COVERAGE_PROCESS_CONFIG",) if name in os.environ}
    path = os.pathsep.join(
        [str(tmp_path / "bin"), str(postgres_programs()), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    async with MessageService(troubles()) as service:
        settings = own | {
            "PATH": path,
            "HOME": str(tmp_path),
            "DATABASE_URL": database_url,
            "RABBITMQ_URL": rabbitmq_url,
            "MESSAGE_SERVICE_URL": service.url,
            "MESSAGE_SERVICE_TIMEOUT": "500ms",
            "RETRY_BASE_DELAY": "100ms",
            "SEND_AT": "00:00",
            "API_KEYS": f"oncall:{hashlib.sha256(SECRET.encode()).hexdigest()}:admin",
            "LOG_FILE": str(tmp_path / "birthday.log"),
            "LOG_FORMAT": "json",
        }
        (tmp_path / "prometheus").mkdir()
        async with (
            started(settings) as url,
            running_prometheus(tmp_path / "prometheus") as prometheus,
            running_alertmanager(tmp_path) as alertmanager,
        ):
            prometheus.scrape(url)
            await pool.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            await trouble(url, postgres_server, service)
            await eventually(lambda: has_seen(prometheus, service), "Prometheus has seen it")
            desk = Desk(tmp_path, settings, beginning(url, prometheus.url, alertmanager))
            yield Installation(url, desk, prometheus, service, pool)


async def trouble(url: str, postgres_server: PostgresServer, service: MessageService) -> None:
    """Let everything happen that an operator looks for."""
    before = len(service.requests)
    await post_users(url, "Lovelace", "Refused", "Flaky", "Slow", "Lovelace")
    await service.wait_for(before + 7)
    assert await ask(url, "/users") == 401
    assert await ask(url, "/users", "wrong") == 401
    await postgres_server.kill()
    assert await ask(url, "/users", SECRET) == 503
    await postgres_server.start()
    await eventually(lambda: _is(url, 200), "the database is back", 60)
    await post_users(url, "Lovelace")


async def has_seen(prometheus: Prometheus, service: MessageService) -> bool:
    """Say whether a scrape has shown that the message service knows every message."""
    sent = await prometheus.query("sum(birthday_scheduler_messages_sent_total)")
    return sent == [len(service.by_key())]


async def _is(url: str, status: int) -> bool:
    return await ask(url, "/users", SECRET) == status


def beginning(url: str, prometheus: str, alertmanager: str) -> str:
    """Return how an operator's shell starts: as the runbook says, with the addresses and the place of this test."""
    addresses, functions = [block.text for block in blocks("bash")[:2]]
    assert "export API=" in addresses
    assert "promql() {" in functions
    return f"""
{addresses}
{functions}
API={url} PROMETHEUS={prometheus} ALERTMANAGER={alertmanager} AUTH=$HOME/auth-header
birthday() {{ {" ".join(COMMAND)} "$@"; }}
logs() {{ cat "$LOG_FILE"; }}
watch() {{ shift 2; bash -o pipefail -c "$*"; }}
make() {{ command make --dry-run "$@"; }}
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_every_command_does_what_it_is_there_for(
    installation: Installation, postgres_server: PostgresServer
) -> None:
    """From top to bottom, each ends with status 0, and prints something unless there is a reason not to."""
    typed: dict[str, Typed] = {}
    try:
        for block in blocks("bash"):
            tried = [one for one in shell_statements(block.text) if is_tried(one)]
            if any("dlq" in one for one in tried):
                # They change what they are about, and one may need what another has found.
                await installation.refuse_one()
                statements = tried
            else:
                statements = [one for one in tried if one not in typed]
            typed |= {one.statement: one for one in await installation.desk.type(statements)}
    finally:
        if RESTORED in await databases(postgres_server):
            await postgres_server.drop_database(RESTORED)
    assert len(typed) > 120
    wrong = [one for one in typed.values() if not one.is_right]
    assert not wrong, "\n\n".join(
        f"{one.statement}\n=> {one.status} {one.out[-300:]} {one.err[-600:]}" for one in wrong
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_probe_that_fails_shows_why(installation: Installation, postgres_server: PostgresServer) -> None:
    """With the database away, what the runbook types shows what is wrong; and the helper takes a plain number, too."""
    probes = [
        one
        for block in blocks("bash")
        for one in shell_statements(block.text)
        if re.match(r"curl .*(health|ready)", one)
    ]
    [number] = await installation.desk.type(["promql 'scalar(vector(7))'"])
    assert (number.status, number.out) == (0, "7\n")
    await postgres_server.kill()
    try:
        typed = await installation.desk.type(set(probes))
    finally:
        await postgres_server.start()
    told = {one.statement: one for one in typed if "jq ." in one.statement and "jq -e" not in one.statement}
    assert len(told) >= 5
    for one in told.values():
        assert one.status == (0 if "/queue" in one.statement else 22), one
        assert "health" in one.out or "not ready" in one.out, one
    assert json.loads(told['curl -sS --fail-with-body "$API/health/db" | jq .'].out)["reason"]


async def databases(postgres_server: PostgresServer) -> set[str]:
    """Return the names of all databases of the server."""
    connection = await asyncpg.connect(postgres_server.url("postgres"))
    try:
        return {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
    finally:
        await connection.close()


@pytest.mark.slow
async def test_every_query_is_answered_with_data(installation: Installation, postgres_server: PostgresServer) -> None:
    """Prometheus, with the project's own rules, understands each of them, and has something to say to it."""
    waiting = [query for block in blocks("promql") for query in queries(block.text) if not YOUNG.search(query)]
    assert len(waiting) > 90

    # Once more: the rate of a series is that of its growth after it was seen first.
    await trouble(installation.url, postgres_server, installation.service)

    async def are_answered() -> bool:
        waiting[:] = await installation.prometheus.unanswered(waiting)
        return not waiting

    with suppress(AssertionError):
        await eventually(are_answered, "there is data", 60)
    assert waiting == []


@pytest.mark.parametrize("source", ["docs/runbook.md", "tests/data/operators.sql"])
async def test_every_statement_of_sql_runs(database_url: str, source: str) -> None:
    """Those of the runbook, and those that operators remember; what can be rolled back is."""
    if source.endswith(".md"):
        statements = [one for block in blocks("sql") for one in sql_statements(block.text)]
    else:
        # It names the database that an operator is connected to.
        name = urlsplit(database_url).path.strip("/")
        statements = sql_statements(
            OPERATORS_SQL.read_text().replace("REINDEX DATABASE birthday_scheduler", f"REINDEX DATABASE {name}")
        )
    assert len(statements) >= 14
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE EXTENSION pg_stat_statements")
        for statement in statements:
            if ALONE.match(statement):
                await connection.execute(statement)
                continue
            transaction = connection.transaction()
            await transaction.start()
            await connection.fetch(statement)
            await transaction.rollback()
    finally:
        await connection.close()


def test_promtool_accepts_every_query(tmp_path: Path) -> None:
    """As rules that record something: so they are valid without a server, and give numbers, not ranges."""
    listed = [query for block in blocks("promql") for query in queries(block.text)]
    rules = [{"record": f"runbook:{number}", "expr": query} for number, query in enumerate(listed)]
    # JSON is YAML.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "runbook", "rules": rules}]}))
    finished = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yml"], check=False, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"{len(listed)} rules found" in finished.stdout
