"""How often a client may ask: counts in windows of time, and what an answer says of them."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from birthday.http.context import RATE

MOST_CLIENTS: Final = 100_000


@dataclass(slots=True)
class Window:
    """How often one client has asked, until ``ends_at``."""

    ends_at: float
    count: int = 0

    def seconds_left(self, now: float) -> int:
        """Return how many whole seconds the window still lasts, at least one."""
        return max(1, math.ceil(round(self.ends_at - now, 3)))


class Windows:
    """Counts by client. The first request of a client opens its window, and the count ends with the window.

    If too many clients have a window, the oldest windows are forgotten, so that the memory is bounded.
    """

    def __init__(self, seconds: float, most: int = MOST_CLIENTS) -> None:
        """Count in windows of ``seconds``, for ``most`` clients at a time."""
        self._seconds = seconds
        self._most = most
        self._open: OrderedDict[str, Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def count(self, client: str, now: float) -> Window:
        """Count one request at ``now``, in seconds of a clock that never goes back, and return the client's window."""
        while self._open and (len(self) >= self._most or next(iter(self._open.values())).ends_at <= now):
            self._open.popitem(last=False)
        window = self._open.get(client)
        if window is None:
            window = self._open[client] = Window(now + self._seconds)
        window.count += 1
        return window


class RateLimit:
    """RATE_LIMIT: how many requests a client may send in a second."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._windows = Windows(1)

    def count(self, client: str, now: float) -> tuple[bool, str]:
        """Count a request. Say whether it is allowed, and how many more are, as the field RateLimit does."""
        window = self._windows.count(client, now)
        left = max(0, self.per_second - window.count)
        return window.count <= self.per_second, f'"default";r={left};t={window.seconds_left(now)}'


def show_rates(app: web.Application, per_second: int) -> None:
    """Tell clients the limit and what is left of it, on every answer to a request that counts.

    The fields are those of draft-ietf-httpapi-ratelimit-headers-10.
    """
    policy = f'"default";q={per_second};w=1'

    async def show(request: web.Request, response: web.StreamResponse) -> None:
        left = request.get(RATE)
        if left is not None:
            response.headers["RateLimit-Policy"] = policy
            response.headers["RateLimit"] = left

    app.on_response_prepare.append(show)
