"""How much one pipeline does at a time, and how long a claim holds."""

from dataclasses import dataclass
from datetime import timedelta

BATCH = 200
STORING = timedelta(seconds=10)
"""The part of a lease that is reserved for storing the outcome."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one pipeline: ``concurrency`` sends at a time, each for at most ``send_timeout``.

    ``ahead`` says whether more messages are claimed than can be sent at once. If nobody may repeat what a dead worker
    was sending, each message that waits for a slot would be lost for nothing.
    """

    concurrency: int
    send_timeout: timedelta
    ahead: bool = True

    @property
    def batch(self) -> int:
        """How many deliveries are claimed at a time: no more than the slots soon need."""
        return min(BATCH, 2 * self.concurrency)

    @property
    def prefetch(self) -> int:
        """How many deliveries are unacked at a time: being sent, waiting for a slot, being stored, or to be claimed."""
        return 2 * self.concurrency + 2 * self.batch

    @property
    def lease(self) -> timedelta:
        """How long a claim holds: the longest wait for a slot (three rounds of sends), one send, and storing it."""
        return 4 * self.send_timeout + STORING
