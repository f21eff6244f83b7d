"""How long to wait before another attempt: exponential backoff with full jitter."""

from dataclasses import dataclass
from datetime import timedelta
from random import Random


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most ``max_attempts`` attempts of one message, with growing, random waits in between.

    ``unknown`` says whether a message that may have arrived is attempted again.
    """

    max_attempts: int
    base_delay: timedelta
    max_delay: timedelta
    unknown: bool = True

    def exhausted(self, attempt: int) -> bool:
        """Say whether ``attempt`` (the first is 1) was the last one allowed."""
        return attempt >= self.max_attempts

    def delay(self, attempt: int, retry_after: timedelta | None, random: Random) -> timedelta:
        """Return the wait after failed attempt number ``attempt``.

        Uniform between zero and ``base * 2**(attempt - 1)``, capped at ``max_delay``: "full jitter" of the AWS
        Architecture Blog. The wait is never shorter than the receiver's Retry-After, even beyond the cap.
        """
        doublings = min(attempt - 1, 62)
        ceiling = min(self.max_delay.total_seconds(), self.base_delay.total_seconds() * 2.0**doublings)
        jittered = timedelta(seconds=random.uniform(0, ceiling))
        return max(jittered, retry_after) if retry_after is not None else jittered
