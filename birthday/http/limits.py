"""The limits of one listener: how many connections there may be, and how long each client may keep us waiting."""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Protocol

import structlog

log = structlog.get_logger()

REFRESHES = 10
"""How many times connections are checked within the shortest time limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for clients. Times are in seconds.

    There are no settings for these: a proxy in front, which knows its clients, may be stricter.
    """

    head: float = 10.0
    """From connecting, or from the first byte of a later request, until its head is complete."""
    body: float = 30.0
    """From the end of the head until the body is complete."""
    idle: float = 75.0
    """Between an answer and the next request: longer than a proxy keeps its connections, which is usually 60 s."""
    unread: float = 30.0
    """How long an answer may wait to be read."""
    lingering: float = 2.0
    """How long input is still read and discarded after a refusal, so that the client can read the answer."""
    head_bytes: int = 32 * 1024
    line_bytes: int = 4 * 1024
    field_bytes: int = 8 * 1024
    fields: int = 64
    connections: int = 4096
    """In total. If half of the limit of open files is less, that counts, because deliveries need files too."""
    connections_per_client: int = 1024
    """From one address, or one IPv6 network of 64 bits."""

    @property
    def most(self) -> int:
        """How many connections there may be under the file limit of this process."""
        return min(self.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    @property
    def shortest(self) -> float:
        """The shortest of the times."""
        return min(self.head, self.body, self.unread, self.lingering)


class Client(Protocol):
    """One connection, as far as this module is concerned."""

    address: str

    @property
    def keeps_us_waiting(self) -> bool:
        """Say whether the next step is the client's, so that closing would lose no work of ours."""

    def check(self, now: float) -> None:
        """Close the connection if the client is too slow."""

    def cut(self) -> None:
        """Close the connection at once."""


class Connections:
    """All open connections by client; of each client, the one that has been silent for longest comes first."""

    def __init__(self, limits: Limits, is_proxy: Callable[[str], bool]) -> None:
        """Start with none. Trusted proxies connect for many clients, so only the limit in total holds for them."""
        self.limits = limits
        self._is_proxy = is_proxy
        self._most = limits.most
        self._of: dict[str, dict[Client, None]] = {}
        self.count = 0

    def enter(self, connection: Client) -> bool:
        """Add a connection and say whether it may stay.

        If the client has too many connections, one of its own is closed. If there are too many in total, the client
        with the most connections loses one. The one that has kept us waiting for longest is closed. If all are
        being answered, none is closed, and the new one may not stay.
        """
        client = client_of(connection.address)
        own = self._of.get(client, {})
        if len(own) >= self.limits.connections_per_client and not self._is_proxy(connection.address):
            room = self._make_room(own)
        elif self.count >= self._most:
            room = self._make_room(max(self._of.values(), key=len))
        else:
            room = True
        if room:
            self._of.setdefault(client, {})[connection] = None
            self.count += 1
        return room

    def heard(self, connection: Client) -> None:
        """Note that the client has just sent something."""
        own = self._of[client_of(connection.address)]
        if len(own) > 1 and connection in own:
            del own[connection]
            own[connection] = None

    def leave(self, connection: Client) -> None:
        """Forget a connection; idempotent."""
        client = client_of(connection.address)
        own = self._of.get(client, {})
        if connection in own:
            del own[connection]
            self.count -= 1
            if not own:
                del self._of[client]

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Close the connections of slow clients within the context, and all that are left at its end."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            for connection in self._all():
                connection.cut()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.shortest / REFRESHES)
            now = loop.time()
            for connection in self._all():
                connection.check(now)

    def _make_room(self, own: dict[Client, None]) -> bool:
        for connection in own:
            if connection.keeps_us_waiting:
                log.info("http.connection_cut", client=connection.address, reason="others need its place")
                connection.cut()
                self.leave(connection)
                return True
        return False

    def _all(self) -> list[Client]:
        return [connection for own in self._of.values() for connection in own]


@lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 network, because a host may use all of it."""
    if ":" not in address:
        return address
    with suppress(ValueError):
        whole = IPv6Address(address)
        return str(whole.ipv4_mapped or ip_network((whole, 64), strict=False))
    return address
