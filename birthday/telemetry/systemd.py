"""What systemd is told of this process, as sd_notify(3) describes: it serves, its event loop runs, it stops."""

import asyncio
import socket
from datetime import timedelta
from typing import Final

import structlog

log = structlog.get_logger()

_PATIENCE_SECONDS: Final = 1.0
"""How long the event loop may wait for a full socket."""


class Systemd:
    """Tells systemd, or another supervisor with its protocol, about this process; nothing without an address."""

    def __init__(self, address: str | None = None, watchdog: timedelta | None = None) -> None:
        """Set NOTIFY_SOCKET, where ``@`` begins an abstract name, and the time limit of the watchdog, if it has one."""
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._pause_seconds = watchdog.total_seconds() / 2 if watchdog else None

    async def report_until(self, stop: asyncio.Event, status: str) -> None:
        """Tell that the process serves, then that its event loop runs, until ``stop`` is set; then that it stops.

        ``status`` is the line that ``systemctl status`` shows. A blocked event loop tells nothing.
        """
        self.tell("READY=1", f"STATUS={status}")
        while not stop.is_set():
            try:
                async with asyncio.timeout(self._pause_seconds):
                    await stop.wait()
            except TimeoutError:
                self.tell("WATCHDOG=1")
        self.tell("STOPPING=1", "STATUS=Drains, then ends")

    def tell(self, *assignments: str) -> None:
        """Send assignments such as ``READY=1``. If that fails, it is logged: the process can do without."""
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(_PATIENCE_SECONDS)
                sending.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            log.warning("systemd.not_told", assignments=assignments, reason=str(error))
