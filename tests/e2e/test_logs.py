"""The log of the program as operators have it: what they search in it, how it rotates, and what is never in it."""

import asyncio
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from tests.support.message_service import Answer, Fault, MessageService
from tests.support.product import eventually
from tests.support.program import COMMAND, Program, run, running

ROOT = Path(__file__).parents[2]
TODAY = datetime.now(UTC).date()
ADA = {"firstName": "Ada", "lastName": "Lovelace", "timezone": "UTC", "dateOfBirth": f"1992-{TODAY:%m-%d}"}


async def post(program: Program, body: object, headers: Mapping[str, str] | None = None, path: str = "/users") -> int:
    """Post something, JSON unless it is bytes, and return the status."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | dict(headers or {})
    async with (
        aiohttp.ClientSession() as session,
        session.post(program.url + path, data=data, headers=headers) as response,
    ):
        await response.read()
        return response.status


def events(*paths: Path) -> list[dict[str, Any]]:
    """Return the lines of log files, each an object."""
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


async def in_shell(script: str) -> tuple[int | None, str]:
    """Run a line of the runbook, and return its exit status and what it says."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-o", "pipefail", "-c", script, stdout=PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


# What stands in the runbook after kubectl logs, and what it is to find in the log of an afternoon with troubles.
SEARCHES = [
    ('kubectl logs deployment/birthday-scheduler-api --tail=200 | grep -i "error\\|fatal\\|crash"', '"message.failed"'),
    ("kubectl logs deployment/birthday-scheduler-api --tail=500 | jq 'select(.level == \"error\")'", "message.failed"),
    ("kubectl logs deployment/birthday-scheduler-api | grep -i error", "external_api_error"),
    ("kubectl logs deployment/birthday-scheduler-api | grep ERROR", '"message.failed"'),
    ('kubectl logs deployment/birthday-scheduler-worker | grep -i "circuit\\|external" | tail -50', "circuit.opened"),
    ('kubectl logs deployment/birthday-scheduler-worker | grep -i "circuit\\|external"', '"external_api_error"'),
    (
        'kubectl logs deployment/birthday-scheduler-worker | grep -i "dlq\\|dead.letter" | tail -100',
        "message.malformed",
    ),
    ('kubectl logs deployment/birthday-scheduler-worker | grep -i "dlq\\|dead.letter" | tail -100', "message.failed"),
    (
        (
            "kubectl logs deployment/birthday-scheduler-worker | grep \"message.failed\\|dlq\" | jq -r '.error_type' "
            "| sort | uniq -c"
        ),
        "1 validation_error",
    ),
]


@asynccontextmanager
async def troubled(database_url: str, service: MessageService, **settings: str) -> AsyncIterator[Program]:
    """Run the program through a refused message, an open circuit and a malformed queue message."""
    service.answer_with(Answer(status=422), Answer(status=503))
    async with running(
        DATABASE_URL=database_url,
        MESSAGE_SERVICE_URL=service.url,
        SEND_AT="00:00",
        CIRCUIT_BREAKER_FAILURE_THRESHOLD="1",
        CIRCUIT_BREAKER_RESET_TIMEOUT="1s",
        **settings,
    ) as program:
        yield program


async def test_every_search_of_the_runbook_finds_what_it_is_for(
    database_url: str, message_service: MessageService, tmp_path: Path
) -> None:
    """Its lines as they stand, with the log of a real process in place of kubectl's."""
    async with troubled(database_url, message_service) as program:
        assert await post(program, ADA | {"email": "ada@example.com"}) == 201
        await program.wait_for_event("message.failed")
        assert await post(program, ADA | {"email": "grace@example.com"}) == 201
        await program.wait_for_event("circuit.opened")
        connection = await asyncpg.connect(database_url)
        await connection.execute("""INSERT INTO queue_messages (body) VALUES ('{"messageId": 7}')""")
        await connection.close()
        # The circuit is open: what is malformed is noticed when the worker takes the next messages.
        message_service.behaviour = lambda _received: Answer()
        await program.wait_for_event("message.malformed", 60)
    log = tmp_path / "log"
    log.write_text("".join(f"{json.dumps(event, separators=(',', ':'))}\n" for event in program.events))
    for search, found in SEARCHES:
        # "docker logs" and "pm2 logs" show the same lines.
        script = f'kubectl() {{ cat "{log}"; }}; {search}'
        status, out = await in_shell(script)
        assert status == 0, (search, out)
        assert found in out, (search, out)
    errors = [event for event in program.events if event["level"] == "error"]
    assert {event["severity"] for event in errors} == {"ERROR"}


async def test_every_line_has_the_standard_fields_and_failures_say_of_what(
    database_url: str, message_service: MessageService
) -> None:
    """Requests have their id, messages theirs, failed messages their error type."""
    async with troubled(database_url, message_service, LOG_LEVEL="debug", ROLE="api,scheduler,worker") as program:
        await post(program, ADA | {"email": "ada@example.com"}, {"X-Request-ID": "request-1"})
        failed = await program.wait_for_event("message.failed")
    for event in program.events:
        assert event["level"] in {"debug", "info", "warning", "error"}, event
        assert event["role"] == "api,scheduler,worker"
        assert datetime.fromisoformat(event["timestamp"]).utcoffset() is not None
    [request] = [event for event in program.events if event["event"] == "http.request"]
    assert (request["request_id"], request["status"]) == ("request-1", 201)
    assert failed["error_type"] == "validation_error"
    connection = await asyncpg.connect(database_url)
    assert failed["message_id"] == str(await connection.fetchval("SELECT id FROM message_logs"))
    await connection.close()


async def test_a_start_that_fails_is_in_the_log_as_an_error(tmp_path: Path) -> None:
    """In a pod that crashes again and again, the log is all there is."""
    url = "postgresql://u:hidden@127.0.0.1:1/birthday_scheduler"
    finished = await run(DATABASE_URL=url, CHANNEL="console", START_TIMEOUT="0")
    assert finished.status == 1
    [line] = [json.loads(line) for line in finished.err.splitlines()]
    assert (line["level"], line["event"]) == ("error", "service.failed")
    assert "127.0.0.1:1/birthday_scheduler" in line["error"]
    assert "hidden" not in finished.err
    into_file = await run(DATABASE_URL=url, CHANNEL="console", START_TIMEOUT="0", LOG_FILE=str(tmp_path / "log"))
    assert into_file.status == 1
    assert [event["event"] for event in events(tmp_path / "log")] == ["service.failed"]


async def test_no_line_is_lost_or_written_twice_when_the_file_rotates_under_load(
    database_url: str, tmp_path: Path
) -> None:
    """Rename, then SIGUSR1, while requests are being answered: each has its line in one of the two files."""
    log, rotated = tmp_path / "birthday.log", tmp_path / "birthday.log.1"
    async with serving_into(log, database_url) as served, aiohttp.ClientSession() as session:

        async def ask(number: int) -> None:
            async with session.post(
                f"{served.http}/users", data=b"{", headers={"X-Request-ID": f"r{number}"}
            ) as response:
                await response.read()

        async def rotate() -> None:
            await eventually(lambda: has_line(log, '"r50"'), "requests are in the log")
            log.rename(rotated)
            await eventually(lambda: has_line(rotated, '"r150"'), "they go on in the renamed file")
            served.process.send_signal(signal.SIGUSR1)
            await eventually(lambda: has_line(log, '"log.reopened"'), "the log is reopened")

        rotating = asyncio.create_task(rotate())
        number = 0
        while not rotating.done() or number < 400:
            await asyncio.gather(*(ask(number + one) for one in range(10)))
            number += 10
        await rotating
    ids = [event["request_id"] for event in events(rotated, log) if event["event"] == "http.request"]
    assert sorted(ids) == sorted(f"r{one}" for one in range(number))
    assert any(event["event"] == "http.request" for event in events(log))
    assert events(log)[-1]["event"] == "service.stopped"


async def test_while_the_directory_is_gone_the_old_file_goes_on(database_url: str, tmp_path: Path) -> None:
    """An error says that there is no new file; nothing stops, and when the directory is back, a signal makes one."""
    directory, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    directory.mkdir()
    log = directory / "birthday.log"
    async with serving_into(log, database_url) as served, aiohttp.ClientSession() as session:
        directory.rename(elsewhere)
        old = elsewhere / log.name
        served.process.send_signal(signal.SIGUSR1)
        await eventually(lambda: has_line(old, '"log.reopen_failed"'), "the failure is in the old file")
        async with session.post(f"{served.http}/users", data=b"{", headers={"X-Request-ID": "later"}) as response:
            assert response.status >= 400
        await eventually(lambda: has_line(old, '"later"'), "the old file goes on")
        directory.mkdir()
        served.process.send_signal(signal.SIGUSR1)
        await eventually(lambda: has_line(log, '"log.reopened"'), "a new file")
    [failure] = [event for event in events(old) if event["event"] == "log.reopen_failed"]
    assert failure["level"] == "error"


async def test_a_rotation_ends_no_process_that_is_starting(tmp_path: Path) -> None:
    """SIGUSR1 before there is a log to reopen does nothing. Here a start waits for somebody to read the log, a FIFO."""
    log = tmp_path / "birthday.log"
    os.mkfifo(log)
    nowhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/nowhere", "START_TIMEOUT": "0", "CHANNEL": "console"}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, env={"PATH": os.environ["PATH"], "LOG_FILE": str(log), **nowhere}
    )
    try:
        await eventually(lambda: catches(process.pid, signal.SIGUSR1), "it has taken precautions")
        process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(60):
            text = await asyncio.to_thread(log.read_text)
            assert await process.wait() == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert [json.loads(line)["event"] for line in text.splitlines()] == ["service.failed"]


async def test_what_takes_precautions_is_there_at_once() -> None:
    """Whoever starts the program, as installed or with ``python -m``, imports nothing but that first."""
    [script] = [one for one in entry_points(group="console_scripts") if one.name == "birthday"]
    code = (
        f"import sys; from {script.module} import {script.attr}; print(len(set(sys.modules) & {{'click', 'asyncio'}}))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE)
    out, _ = await process.communicate()
    assert out == b"0\n"


async def catches(pid: int, number: signal.Signals) -> bool:
    """Say whether a process has a handler for a signal."""
    status = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


LOGROTATE = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed")
async def test_the_shipped_logrotate_configuration_rotates_without_loss(database_url: str, tmp_path: Path) -> None:
    """As it stands it is accepted; with the paths, the user and the process of this test it rotates."""
    assert LOGROTATE is not None
    shipped = (ROOT / "config/logrotate/birthday").read_text()
    log = tmp_path / "birthday.log"
    async with serving_into(log, database_url) as served:
        own = f"    su {os.geteuid()} {os.getegid()}\n    create 0644 {os.geteuid()} {os.getegid()}\n"
        head, script = shipped.replace("/var/log/birthday-scheduler/*.log", str(log)).split("    postrotate\n")
        head = head.replace("    create 0644 birthday birthday\n", own)
        configuration = tmp_path / "logrotate.conf"
        tail = script[script.index("    endscript") :]
        configuration.write_text(f"{head}    postrotate\n        kill -USR1 {served.process.pid}\n{tail}")
        configuration.chmod(0o644)
        state = tmp_path / "state"
        rotated = await asyncio.create_subprocess_exec(
            LOGROTATE, "-v", "-f", "-s", str(state), str(configuration), stdout=PIPE, stderr=PIPE
        )
        _, told = await rotated.communicate()
        assert rotated.returncode == 0, told.decode()
        await eventually(lambda: has_line(log, '"log.reopened"'), "the log is reopened")
    assert events(log.with_suffix(".log.1"))[-1]["event"] == "service.started"
    assert events(log)[-1]["event"] == "service.stopped"


async def test_on_a_terminal_the_log_is_readable(database_url: str) -> None:
    """Colours and columns instead of JSON, without being asked for; the start tells where everything is."""
    leader, follower = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "PORT": "0", "ROLE": "api", "DATABASE_URL": database_url}
    process = await asyncio.create_subprocess_exec(*COMMAND, env=environment, stdout=PIPE, stderr=follower)
    os.close(follower)
    shown = b""

    def read() -> None:
        nonlocal shown
        shown += os.read(leader, 65536)

    loop = asyncio.get_running_loop()
    loop.add_reader(leader, read)

    async def has_started() -> bool:
        return b"Ctrl-C stops it" in shown

    async def has_stopped() -> bool:
        return b"service.stopped" in shown and b"\n" in shown.rpartition(b"service.stopped")[2]

    await eventually(has_started, "the program has started", 60)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    await eventually(has_stopped, "the end is told")
    loop.remove_reader(leader)
    os.close(leader)
    told = dict(re.findall(r"^  (\w+) +(\S.*?)\r?$", shown.decode(), re.MULTILINE))
    assert list(told) == ["Console", "API", "Docs", "Database", "Queue", "Channel"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/console  \(CONSOLE=off removes it\)", told["Console"])
    assert "set RABBITMQ_URL" in told["Queue"]
    assert b"service.started" not in shown
    [line] = [line for line in shown.decode().splitlines() if "service.stopped" in line]
    assert not line.startswith("{")
    assert "\x1b[" in line
    assert "[\x1b[32m\x1b[1minfo" in line


class Serving:
    """A process that logs into a file, and where it serves HTTP."""

    def __init__(self, process: asyncio.subprocess.Process, http: str) -> None:
        """Keep both."""
        self.process = process
        self.http = http


@asynccontextmanager
async def serving_into(log: Path, database_url: str) -> AsyncIterator[Serving]:
    """Run the API with LOG_FILE until the context ends; nothing comes on standard error meanwhile."""
    environment = {
        "PATH": os.environ["PATH"],
        "PORT": "0",
        "ROLE": "api",
        "DATABASE_URL": database_url,
        "LOG_FILE": str(log),
    }
    process = await asyncio.create_subprocess_exec(*COMMAND, env=environment, stdout=PIPE, stderr=PIPE)
    try:
        await eventually(lambda: has_line(log, '"service.started"'), "the program has started", 60)
        [started] = [event for event in events(log) if event["event"] == "service.started"]
        yield Serving(process, str(started["health"]).removesuffix("/health"))
    finally:
        process.send_signal(signal.SIGTERM)
        _, told = await process.communicate()
    assert (process.returncode, told) == (0, b"")


async def has_line(path: Path, part: str) -> bool:
    """Say whether a file has a whole line with ``part`` in it."""
    return any(part in line for line in whole_lines(path))


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a file that are complete, none if there is no file."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


PLANTED = {
    "e-mail": "zqx-planted@mail.example",
    "first name": "Zqxfirst",
    "last name": "Zqxlast",
    "date of birth": f"1961-{TODAY:%m-%d}",
    "API key": "zqx-api-secret",
    "wrong API key": "zqx-wrong-secret",
    "key of the message service": "zqx-service-secret",
    "password of the database": "zqx-dsn-password",
    "payload": "zqx-payload",
}
PERSON = {
    "firstName": PLANTED["first name"],
    "lastName": PLANTED["last name"],
    "email": PLANTED["e-mail"],
    "dateOfBirth": PLANTED["date of birth"],
    "timezone": "UTC",
}

SABOTAGE = """
CREATE UNIQUE INDEX sabotage ON users (last_name);
ALTER TABLE users ADD CONSTRAINT no_more CHECK (first_name <> 'Zqxfirst-refused');
CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no place for %', (SELECT users FROM users WHERE id = NEW.user_id)
        USING DETAIL = (SELECT email FROM users WHERE id = NEW.user_id);
END $$;
"""
REFUSE_PLANS = "CREATE TRIGGER complain BEFORE INSERT ON message_logs FOR EACH ROW EXECUTE FUNCTION complain()"
REFUSE_CLAIMS = """
CREATE TRIGGER complain BEFORE UPDATE ON message_logs FOR EACH ROW
WHEN (NEW.status = 'sending') EXECUTE FUNCTION complain()
"""
ACCEPT = "DROP TRIGGER complain ON message_logs"


def with_password(url: str) -> str:
    """Return the URL of a database with the planted password in it; the server of the tests asks for none."""
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{PLANTED['password of the database']}@{place}").geturl()


def assert_nothing_planted(*texts: str) -> None:
    """Look for every planted value, in whatever case, and for whatever was made of one."""
    for text in texts:
        for line in text.splitlines():
            assert "zqx" not in line.lower()
            assert PLANTED["date of birth"] not in line
            assert "1961, " not in line


async def ask_badly(program: Program, key: Mapping[str, str]) -> None:
    """Send requests that fail in every way there is, with planted values in each place."""
    known, unknown = dict(key), {"Authorization": f"Bearer {PLANTED['wrong API key']}"}
    assert await post(program, PERSON, unknown) == 401
    assert await post(program, PERSON, known) == 409
    assert await post(program, PERSON | {"email": "other@example.com"}, known) == 500
    refused = {"firstName": "Zqxfirst-refused", "lastName": "Zqxother", "email": "zqx-2@mail.example"}
    assert await post(program, PERSON | refused, known) == 500
    for field in PERSON:
        assert await post(program, PERSON | {field: "zqx\x00-planted@"}, known) == 422
        assert await post(program, PERSON | {field: {"zqx": ["zqx"]}}, known) == 422
    assert await post(program, PERSON | {"zqx-field": "zqx"}, known) == 422
    assert await post(program, b'{"email": "zqx-planted@mail.example", "firstName": Zqxfirst', known) == 400
    assert await post(program, b'{"email": "zqx-\xff\xfe"}', known) == 400
    assert await post(program, b'{"email": "zqx-planted \\ud83d"}', known) in {400, 422}
    assert await post(program, b"zqx" * 300_000, known) == 413
    assert await post(program, PERSON, known | {"Content-Type": "application/zqx"}) == 415
    assert await post(program, PERSON, known, "/users/zqx-planted@mail.example?email=zqx") in {404, 405}
    assert await post(program, {"userId": "zqx"}, known, "/messages/retry") in {400, 422}
    with socket.create_connection(("127.0.0.1", urlsplit(program.url).port or 0)) as raw:
        raw.sendall(b"GET /zqx-planted@mail.example zqx HTTP/zqx\r\nzqx\x00: Zqxfirst\r\n\r\n")
        raw.settimeout(10)
        await asyncio.to_thread(raw.recv, 1000)


async def test_nothing_personal_and_no_secret_is_ever_logged(
    database_url: str, message_service: MessageService
) -> None:
    """At LOG_LEVEL=debug, through everything that can go wrong with a person's data in hand."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(SABOTAGE)
    echo = PLANTED["e-mail"].encode()
    headers = {"Retry-After": "zqx", "Location": "http://zqx.example/zqx", "Zqx": "zqx"}
    message_service.answer_with(
        Answer(status=503, headers=headers, body=echo, reason="zqx-planted@mail.example"),
        Answer(status=500, fault=Fault.CUT, body=echo),
        Answer(fault=Fault.CLOSE),
        Answer(status=400, body=echo, reason="no zqx-planted@mail.example"),
    )
    secret = PLANTED["API key"]
    settings = {
        "DATABASE_URL": with_password(database_url),
        "MESSAGE_SERVICE_URL": message_service.url,
        "MESSAGE_SERVICE_API_KEY": PLANTED["key of the message service"],
        "API_KEYS": f"shop:{hashlib.sha256(secret.encode()).hexdigest()}:admin",
        "SEND_AT": "00:00",
        "LOG_LEVEL": "debug",
        "RETRY_BASE_DELAY": "50ms",
        "RETRY_MAX_DELAY": "100ms",
    }
    key = {"Authorization": f"Bearer {secret}"}
    try:
        async with running(**settings) as program:
            await connection.execute(REFUSE_CLAIMS)
            assert await post(program, PERSON, key) == 201
            # The database refuses the row, which fails at once; sent again, it fails at the message service.
            await program.wait_for_event("message.failed")
            await connection.execute(ACCEPT)
            await connection.execute("UPDATE message_logs SET status = 'scheduled', attempts = 0")
            await program.wait_for_event("message.retrying")
            await ask_badly(program, key)
            for body in ("zqx-payload", '{"messageId": "zqx-payload"}'):
                await connection.execute("INSERT INTO queue_messages (body) VALUES ($1)", body)
            await program.wait_for_event("message.malformed")
        await connection.execute("DELETE FROM message_logs")
        await connection.execute("DELETE FROM watermarks")
        await connection.execute("UPDATE users SET greeted_year = 0")
        await connection.execute(REFUSE_PLANS)
        # The planner runs once at the start.
        async with running(**settings) as again:
            await again.wait_for_event("planner.refused")
        await connection.execute(ACCEPT)
    finally:
        await connection.close()
    said = [json.dumps(event) for event in program.events + again.events]
    names = {event["event"] for event in program.events}
    # What the test is about has happened, and every line was JSON.
    assert {"http.failed", "message.retrying", "auth.failed", "http.request", "message.malformed"} <= names
    assert "text" not in names
    assert_nothing_planted(*said, *program.printed, *again.printed)


async def test_an_import_logs_nothing_personal(database_url: str, tmp_path: Path) -> None:
    """Rows that are wrong, twice there, or refused by the database: neither log nor standard error quote them."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(SABOTAGE)
    await connection.close()
    rows = [
        PERSON,
        PERSON,
        PERSON | {"email": "zqx-2@mail.example", "lastName": "Zqxother", "dateOfBirth": "zqx"},
        PERSON | {"email": "zqx"},
        PERSON | {"firstName": "Zqxfirst-refused", "email": "zqx-3@mail.example", "lastName": "Zqxthird"},
    ]
    lines = [json.dumps(row) for row in rows] + ['{"email": "zqx-planted@mail.example", Zqxfirst']
    file = tmp_path / "users.ndjson"
    file.write_text("\n".join(lines))
    finished = await run(
        "import", str(file), DATABASE_URL=with_password(database_url), LOG_LEVEL="debug", LOG_FORMAT="json"
    )
    assert finished.status == 1
    # What is wrong with a row of the file is for whoever imports it, and is no log line.
    logged = [line for line in finished.err.splitlines() if not line.startswith("line ")]
    refused = "birthday: the database refuses: CheckViolationError (23514): "
    assert [line.startswith(refused) for line in logged if "refuses" in line] == [True]
    assert_nothing_planted(*logged)
    assert PLANTED["password of the database"] not in finished.err
