"""What a channel does: it tries once to send one greeting, and returns the outcome as a value."""

from typing import Protocol

from birthday.channels.breaker import CircuitBreaker
from birthday.channels.outcomes import Greeting, Outcome


class Channel(Protocol):
    """A way to send greetings. Safe for concurrent use within one event loop."""

    breaker: CircuitBreaker | None
    """Stops sending while the other side seems down. None if the channel needs none."""
    api: str
    """The name of the other side in metrics."""

    async def send(self, greeting: Greeting) -> Outcome:
        """Try once, within the channel's own time limit. Never raises because of the other side."""

    async def check(self) -> None:
        """Make sure that the other side can be reached.

        Raises:
            UnavailableError: if it cannot; the text says where and why.
        """

    async def close(self) -> None:
        """Release what the channel holds. Idempotent."""
