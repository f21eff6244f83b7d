"""The channel without a message service: greetings become lines of text, for a first try and for development."""

from typing import TextIO

from birthday.channels.breaker import CircuitBreaker
from birthday.channels.outcomes import Delivered, Greeting, Outcome, Temporary
from birthday.clock import Clock
from birthday.core.message import ErrorType


class ConsoleChannel:
    """Writes one line for each greeting: instant, address, text, with two spaces in between."""

    api = "console"

    def __init__(self, stream: TextIO, clock: Clock, breaker: CircuitBreaker | None = None) -> None:
        """Write to ``stream``, which the caller owns."""
        self.breaker = breaker
        self._stream = stream
        self._clock = clock

    async def send(self, greeting: Greeting) -> Outcome:
        """Write the line and flush it. A stream that is closed, broken or full is a temporary failure."""
        line = f"{self._clock.now():%Y-%m-%dT%H:%M:%SZ}  {_printable(greeting.email)}  {_printable(greeting.text)}\n"
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError) as error:
            # ValueError is how Python reports that the stream has been closed.
            return Temporary(ErrorType.EXTERNAL_API_ERROR, f"cannot write to the console: {error}")
        return Delivered()

    async def check(self) -> None:
        """Do nothing: there is no other side."""

    async def close(self) -> None:
        """Do nothing: the caller owns the stream."""


def _printable(text: str) -> str:
    """Return ``text`` with unprintable characters escaped, because a terminal may obey them or hide them."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
