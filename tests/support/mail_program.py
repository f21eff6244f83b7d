"""A mail server that can be killed: aiosmtpd in a process of its own, which writes down what it has accepted.

It writes before it answers, so that what a client was told is in the file.
"""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from aiosmtpd.smtp import SMTP, Envelope, Session

ANSWER_SECONDS = 0.05
_ID = re.compile(rb"^Message-ID: <([0-9a-f-]{36})@", re.MULTILINE)


class _Handler:
    def __init__(self, log: Path) -> None:
        self._log = log.open("a", encoding="utf-8", buffering=1)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - its name
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        found = _ID.search(content)
        assert found is not None
        self._log.write(f"{envelope.rcpt_tos[0]} {found[1].decode()}\n")
        await asyncio.sleep(ANSWER_SECONDS)
        return "250 OK"


async def _serve(port: int, log: Path) -> None:
    handler = _Handler(log)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(handler, hostname="mail.example.com", enable_SMTPUTF8=True), "127.0.0.1", port
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


class MailProgram:
    """The process. It has the same port each time that it is started."""

    def __init__(self, log: Path) -> None:
        """Append to ``log``."""
        self.port = 0
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """SMTP_URL of this server."""
        return f"smtp://127.0.0.1:{self.port}?starttls=false"

    async def start(self) -> Self:
        """Start it, and wait until it listens."""
        module = ["-m", "tests.support.mail_program", str(self.port), str(self._log)]
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(sys.executable, *module, stdout=pipe)
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            self.port = int(await self._process.stdout.readline())
        return self

    async def kill(self) -> None:
        """End it the hard way."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    def accepted(self) -> list[tuple[str, str]]:
        """Return the recipient and the message id of each e-mail that was accepted."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [(recipient, message_id) for recipient, message_id in (line.split(" ") for line in lines)]


@asynccontextmanager
async def mail_program(log: Path) -> AsyncIterator[MailProgram]:
    """Run the server for the length of the context."""
    program = await MailProgram(log).start()
    try:
        yield program
    finally:
        await program.kill()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
