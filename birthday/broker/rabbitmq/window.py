"""Tracks the deliveries of one AMQP channel: which are settled, and which of those the server knows of."""

from collections.abc import Sequence


class Window:
    """The delivery tags of one channel, which count from 1, and what the server knows about them.

    One ack covers all tags below the first open one. Settled tags above it wait. Once three quarters of the prefetch
    wait, they are acked one by one, because otherwise one slow message would stop the deliveries.
    """

    def __init__(self, prefetch: int) -> None:
        self._crowd = max(1, prefetch * 3 // 4)
        self._last = 0
        self._low = 0
        self._finished: set[int] = set()
        self._told: set[int] = set()

    def __len__(self) -> int:
        return self._last - self._low - len(self._told)

    @property
    def last(self) -> int:
        """The tag of the last delivery; 0 before the first."""
        return self._last

    @property
    def untold(self) -> int:
        """How many deliveries are settled, and the server does not know it."""
        return len(self._finished)

    def open(self, tag: int) -> None:
        """Note a delivery."""
        self._last = tag

    def settle(self, finished: Sequence[int], rejected: Sequence[int]) -> tuple[list[int], list[int], int | None]:
        """Return the tags to reject, the tags to ack one by one, and the tag up to which to ack all, or None."""
        rejects = [tag for tag in rejected if self._is_open(tag)]
        self._told.update(rejects)
        self._finished.update(tag for tag in finished if self._is_open(tag))
        up_to = None
        while (tag := self._low + 1) in self._told or tag in self._finished:
            self._low = tag
            if tag in self._finished:
                # The server must still wait for this tag.
                up_to = tag
            self._finished.discard(tag)
            self._told.discard(tag)
        singles = self.rest() if len(self._finished) >= self._crowd else []
        return rejects, singles, up_to

    def rest(self) -> list[int]:
        """Return the finished tags that the server does not know of yet. From now on they count as told."""
        rest = sorted(self._finished)
        self._told.update(rest)
        self._finished.clear()
        return rest

    def _is_open(self, tag: int) -> bool:
        return tag > self._low and tag not in self._told and tag not in self._finished
