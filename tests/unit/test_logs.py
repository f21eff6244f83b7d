"""The form of log lines, whoever writes them."""

import asyncio
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from birthday.errors import ConflictError, UnavailableError
from birthday.telemetry.logs import LogFile, configure_logs, tell_unhandled

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    """Give both logging libraries back as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    logging.basicConfig(handlers=handlers, level=level, force=True)
    structlog.reset_defaults()
    sys.excepthook = sys.__excepthook__


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the log file is."""
    return tmp_path / "birthday.log"


@pytest.fixture
def lines(path: Path) -> Lines:
    """Log everything as JSON to a file, and return what reads the lines so far."""
    configure_logs("debug", "json", LogFile(path), "api,worker")
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_an_object_that_begins_with_the_standard_fields(lines: Lines) -> None:
    """So that a person who reads raw lines finds them where they always are; then what the event tells."""
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger().warning("message.failed", message_id="m1", error_type="timeout")
    [line] = lines()
    assert list(line)[:5] == ["timestamp", "level", "severity", "event", "role"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "severity": "WARNING",
        "event": "message.failed",
        "role": "api,worker",
        "request_id": "r1",
        "message_id": "m1",
        "error_type": "timeout",
    }


@pytest.mark.parametrize("name", ["aiohttp.client", "aiormq.connection", "asyncio", "asyncpg.pool"])
def test_libraries_log_in_the_same_form(lines: Lines, name: str) -> None:
    """With the name of their logger; what is below a warning is theirs alone."""
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).error("%s went away", "server")
    [line] = lines()
    del line["timestamp"]
    assert line == {
        "level": "error",
        "severity": "ERROR",
        "event": "server went away",
        "role": "api,worker",
        "logger": name,
    }


def test_warnings_of_python_are_lines_as_well(lines: Lines) -> None:
    """They would stand between the lines in a form of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("this will change", DeprecationWarning, stacklevel=1)
    [line] = lines()
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "this will change" in line["event"]


def test_what_asyncio_prints_of_its_objects_is_left_out(lines: Lines) -> None:
    """It appends tasks, handles and arguments as they print themselves, with all that they hold."""
    logger = logging.getLogger("asyncio")
    logger.error("Task exception was never retrieved\nfuture: <Task exception=KeyError('zaphod')>")
    logger.error("Exception in callback on_line('zaphod') at x.py:1\nhandle: <Handle on_line('zaphod')>")
    assert [line["event"] for line in lines()] == [
        "Task exception was never retrieved",
        "Exception in callback on_line",
    ]


def test_what_a_broken_connection_leaves_is_one_line_and_a_fault_of_ours_has_a_traceback(lines: Lines) -> None:
    """The event loop reports tasks that ended with an error which nobody took; what it quotes is left out."""
    loop = asyncio.new_event_loop()
    try:
        lost = {"message": "Task exception was never retrieved", "exception": ConnectionResetError(104, "reset")}
        tell_unhandled(loop, lost)
        tell_unhandled(loop, {"message": "Exception in callback on_line('zaphod')", "exception": KeyError("zaphod")})
    finally:
        loop.close()
    first, second = lines()
    assert (first["level"], first["event"]) == ("warning", "event_loop.unhandled")
    assert first["what"] == "Task exception was never retrieved"
    assert "exception" not in first
    assert (second["level"], second["what"]) == ("error", "Exception in callback on_line")
    assert "KeyError" in second["exception"]


def test_a_library_does_not_tell_of_each_try_to_connect(lines: Lines) -> None:
    """An outage of RabbitMQ would fill the log: broker.unreachable tells of it once."""
    logger = logging.getLogger("aiormq.connection")
    logger.error("error when creating transport: %r", ConnectionRefusedError())
    logger.error("Unexpected connection close from remote")
    assert [line["event"] for line in lines()] == ["Unexpected connection close from remote"]


def test_what_nobody_catches_is_a_line_as_well(lines: Lines) -> None:
    """Python would print it to standard error, with all that it quotes, and a log file would not have it."""
    try:
        int("zaphod")
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    [line] = lines()
    assert (line["level"], line["event"]) == ("critical", "program.crashed")
    assert "ValueError" in line["exception"]
    assert "test_logs.py" in line["exception"]
    assert "zaphod" not in str(line)


def test_an_exception_is_told_without_what_it_quotes(lines: Lines) -> None:
    """As a field, within one, with a traceback, and from a library alike."""
    error = ConflictError("another user has the e-mail address zaphod@example.com")
    try:
        raise error
    except ConflictError:
        structlog.get_logger().error("as.field", error=error, errors=[error])
        structlog.get_logger().exception("with.traceback")
        logging.getLogger("aiohttp").exception("of a library")
    field, traceback, library = lines()
    assert (field["error"], field["errors"]) == ("ConflictError", ["ConflictError"])
    for line in (traceback, library):
        assert line["exception"].splitlines()[-1] == "ConflictError"
        assert "test_logs.py:" in line["exception"]
    assert "zaphod" not in str(lines())


@pytest.mark.parametrize("value", [2**70, "half a pair: \ud83d", Path("/x"), {1: "one"}, object], ids=repr)
def test_no_value_is_too_strange_to_be_logged(lines: Lines, value: object) -> None:
    """A log line must not raise in the middle of what it tells of."""
    structlog.get_logger().info("strange.value", value=value)
    [line] = lines()
    assert line["event"] == "strange.value"
    assert "value" in line


def test_a_newline_in_a_value_does_not_end_the_line(lines: Lines) -> None:
    """What came from outside cannot forge a line of its own."""
    structlog.get_logger().info("two.lines", value='x\n{"level":"error","event":"forged"}')
    assert [line["event"] for line in lines()] == ["two.lines"]


def test_the_level_holds_for_our_own_lines_too(path: Path) -> None:
    """At LOG_LEVEL=error nothing less is written."""
    configure_logs("error", "json", LogFile(path), None)
    log = structlog.get_logger()
    log.warning("not.this")
    log.error("this.one")
    [line] = [json.loads(text) for text in path.read_text().splitlines()]
    assert line["event"] == "this.one"
    assert "role" not in line


def test_the_readable_form_says_the_same_and_no_more(path: Path) -> None:
    """No colours where nobody sees them, and no local variables below a traceback."""
    configure_logs("info", "console", LogFile(path), "api")
    secret = "zaphod@example.com"
    try:
        int(secret)
    except ValueError:
        structlog.get_logger().exception("request.failed", status=500)
    text = path.read_text()
    assert "request.failed" in text.splitlines()[0]
    assert "status=500" in text.splitlines()[0]
    assert text.splitlines()[-1] == "ValueError"
    assert "\x1b" not in text
    assert secret not in text


def test_after_a_rotation_the_lines_go_to_the_new_file(path: Path, lines: Lines) -> None:
    """The line before is in the renamed file, the line after in a new one with the old name."""
    rotated, log, file = path.with_suffix(".log.1"), structlog.get_logger(), LogFile(path)
    configure_logs("info", "json", file)
    log.info("before")
    path.rename(rotated)
    log.info("between")
    file.reopen()
    log.info("after")
    assert [json.loads(line)["event"] for line in rotated.read_text().splitlines()] == ["before", "between"]
    assert [line["event"] for line in lines()] == ["log.reopened", "after"]


def test_while_no_new_file_can_be_opened_the_old_one_goes_on(path: Path) -> None:
    """An error says so; when the directory is back, the next signal takes effect."""
    file = LogFile(path)
    configure_logs("info", "json", file)
    log = structlog.get_logger()
    elsewhere = path.parent.with_name("elsewhere")
    path.parent.rename(elsewhere)
    file.reopen()
    log.info("still.there")
    old = [json.loads(line) for line in (elsewhere / path.name).read_text().splitlines()]
    assert [line["event"] for line in old] == ["log.reopen_failed", "still.there"]
    assert (old[0]["level"], old[0]["error"]) == ("error", "FileNotFoundError: No such file or directory")
    path.parent.mkdir()
    file.reopen()
    assert json.loads(path.read_text())["event"] == "log.reopened"


def test_reopening_keeps_no_descriptors(path: Path) -> None:
    """A year of daily rotations must not use them up."""
    file = LogFile(path)
    configure_logs("error", "json", file)
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(10):
        file.reopen()
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_what_a_full_disk_does_not_take_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """And whoever logs goes on."""
    configure_logs("info", "json", LogFile(Path("/dev/full")))
    structlog.get_logger().info("disk.full")
    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert {first["event"], second["event"]} == {"disk.full", "log.write_failed"}


def test_a_log_that_cannot_be_written_is_told_until_it_can(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The check tries again, so that an idle process says that all is well, too. Each change is logged once."""
    path.symlink_to("/dev/full")
    file = LogFile(path)
    configure_logs("warning", "json", file)
    asyncio.run(file.check())
    for _ in range(2):
        structlog.get_logger().warning("disk.full")
    with pytest.raises(UnavailableError, match=r"birthday\.log' cannot be written: No space left on device"):
        asyncio.run(file.check())
    told = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines() if line]
    assert sorted(told) == ["disk.full", "disk.full", "log.write_failed"]
    path.unlink()
    file.reopen()
    asyncio.run(file.check())
    assert [json.loads(line)["event"] for line in path.read_text().splitlines() if line] == ["log.written_again"]


def test_long_lines_of_several_writers_do_not_mix(path: Path) -> None:
    """Processes may share a file, and a traceback is long."""
    files = [LogFile(path) for _ in range(4)]
    with ThreadPoolExecutor(len(files)) as threads:
        for number in range(400):
            threads.submit(files[number % len(files)].write, f"{number % 10}" * 50_000 + "\n")
    written = path.read_text().splitlines()
    assert len(written) == 400
    assert {(len(line), len(set(line))) for line in written} == {(50_000, 1)}
