"""What systemd hears of a process: a real datagram socket in its place, and the program as a unit starts it."""

import os
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.notify_socket import hear, listening
from tests.support.program import running


async def test_systemd_hears_of_the_start_the_event_loop_and_the_stop(database_url: str, tmp_path: Path) -> None:
    """READY when it serves, WATCHDOG again and again, STOPPING before it ends; and a line for people each time."""
    address = str(tmp_path / "notify")
    asked = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
    with listening(address) as heard:
        async with running("--role", "api", DATABASE_URL=database_url, **asked) as program:
            port = program.url.rpartition(":")[2]
            assert await hear(heard) == ["READY=1", f"STATUS=Serves api on 127.0.0.1, port {port}"]
            assert [await hear(heard) for _ in range(3)] == [["WATCHDOG=1"]] * 3
            assert await program.stop() == 0
        while (last := await hear(heard)) == ["WATCHDOG=1"]:
            pass
        assert last == ["STOPPING=1", "STATUS=Drains, then ends"]


async def test_without_a_watchdog_systemd_hears_of_start_and_stop_only(database_url: str) -> None:
    """The socket has an abstract name, and the watchdog is meant for another process."""
    address = f"@birthday-{uuid4()}"
    asked = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())}
    with listening(address) as heard:
        async with running("--role", "api", DATABASE_URL=database_url, **asked) as program:
            assert await program.stop() == 0
        assert [(await hear(heard))[0] for _ in range(2)] == ["READY=1", "STOPPING=1"]
        with pytest.raises(BlockingIOError):
            heard.recv(4096)
