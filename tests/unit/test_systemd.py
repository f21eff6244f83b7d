"""What systemd is told when something is wrong: a hung event loop, a socket that is gone, variables for another."""

import asyncio
import os
import socket
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from birthday.config import take_notify_socket
from birthday.telemetry.systemd import Systemd
from tests.support.notify_socket import hear, listening

SHORT = timedelta(milliseconds=100)


async def test_an_event_loop_that_hangs_tells_the_watchdog_nothing(tmp_path: Path) -> None:
    """The watchdog runs out, and systemd starts the process again."""
    address, stop = str(tmp_path / "notify"), asyncio.Event()
    with listening(address) as heard:
        telling = asyncio.create_task(Systemd(address, SHORT).report_until(stop, "Serves"))
        assert await hear(heard) == ["READY=1", "STATUS=Serves"]
        assert await hear(heard) == ["WATCHDOG=1"]
        # Not awaited: this holds up the event loop for as long as the watchdog would wait.
        heard.settimeout(SHORT.total_seconds())
        with pytest.raises(TimeoutError):
            heard.recv(4096)
        heard.settimeout(0)
        assert await hear(heard) == ["WATCHDOG=1"]
        stop.set()
        await telling


def test_a_socket_that_is_gone_is_logged(tmp_path: Path) -> None:
    """The process goes on without systemd."""
    with capture_logs() as logged:
        Systemd(str(tmp_path / "gone")).tell("READY=1")
    assert [(line["event"], line["assignments"]) for line in logged] == [("systemd.not_told", ("READY=1",))]


def test_a_full_socket_holds_nothing_up_for_long(tmp_path: Path) -> None:
    """What does not fit within a second is logged, and lost."""
    address = str(tmp_path / "notify")
    with listening(address), capture_logs() as logged:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flooding:
            flooding.settimeout(0)
            with suppress(BlockingIOError):
                while True:
                    flooding.sendto(b"WATCHDOG=1", address)
        Systemd(address).tell("WATCHDOG=1")
    assert [line["event"] for line in logged] == ["systemd.not_told"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, (None, None)),
        ({"NOTIFY_SOCKET": "/run/notify"}, ("/run/notify", None)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "60000000"}, ("@a", timedelta(minutes=1))),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "100000", "WATCHDOG_PID": str(os.getpid())}, ("@a", SHORT)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}, ("@a", None)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "0"}, ("@a", None)),
        ({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "soon"}, ("@a", None)),
        ({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": ""}, (None, None)),
    ],
)
def test_what_systemd_has_set_is_taken_once(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], taken: tuple[str | None, timedelta | None]
) -> None:
    """Child processes do not inherit it."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert take_notify_socket() == taken
    assert take_notify_socket() == (None, None)
