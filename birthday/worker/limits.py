"""How much one pipeline does at a time, and how long a claim holds."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

BATCH = 200
CLAIMS = 3
"""How many full batches are claimed at a time. More of them make PostgreSQL slower, not faster."""
SETTLEMENTS = 3
"""How many full batches are stored at a time."""
STORING = timedelta(seconds=10)
"""The part of a lease that is reserved for storing the outcome."""


@dataclass(frozen=True)
class Limits:
    """The limits of one pipeline: ``concurrency`` sends at a time, each for at most ``send_timeout``.

    ``ahead`` says whether more messages are claimed than can be sent at once. If nobody may repeat what a dead worker
    was sending, each message that waits for a slot would be lost for nothing.
    """

    concurrency: int
    send_timeout: timedelta
    ahead: bool = True

    @cached_property
    def batch(self) -> int:
        """How many messages one statement claims or stores: no more than the slots soon need."""
        return min(BATCH, 2 * self.concurrency)

    @cached_property
    def unstored(self) -> int:
        """How many messages are sent, or being sent, and not stored when the slots pause."""
        return self.concurrency + SETTLEMENTS * self.batch - self.batch // 2

    @property
    def prefetch(self) -> int:
        """How many deliveries are unacked at a time: to be claimed, waiting for a slot, being sent, or being stored."""
        # As many as ``Flow`` has claimed ahead, one batch more that it then claims, and four that are being acked: one
        # ack is for all deliveries up to the first that is not stored, and the next ones take RabbitMQ 50 ms at times.
        return self.unstored + (self.concurrency + 7 * self.batch if self.ahead else 0)

    @property
    def lease(self) -> timedelta:
        """How long a claim holds: three rounds of sends while it waits for a slot, one send, and storing it.

        A message that has waited longer, because sends have become slow, is given back unsent.
        """
        return 4 * self.send_timeout + STORING
