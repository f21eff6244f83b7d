"""The receiver of delivery events: one signed POST for each attempt, as Standard Webhooks 1.0 describes."""

import hashlib
import ipaddress
from datetime import timedelta
from typing import Final

from yarl import URL

from birthday.channels.message_service.channel import parse_retry_after
from birthday.channels.message_service.connection import BrokenConnectionError
from birthday.channels.message_service.route import Network, Route, UnreachableError, basic_credentials
from birthday.channels.message_service.session import Session
from birthday.clock import Clock
from birthday.core.events import Accepted, Answer, Event, Gone, Refused
from birthday.core.signing import sign
from birthday.errors import UnavailableError

TIMEOUT: Final = timedelta(seconds=15)
_CHECK: Final = timedelta(seconds=5)
_IDLE: Final = 10
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Say whether an IP address is one of the Internet; an IPv4 address inside of an IPv6 one decides for it."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class WebhookReceiver:
    """Posts events to one URL. Redirects are not followed."""

    def __init__(
        self,
        url: str,
        keys: tuple[bytes, ...],
        network: Network,
        clock: Clock,
        *,
        allow_private: bool,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        """Sign with each of ``keys``. Unless ``allow_private``, no address of a private network is connected to.

        The address is looked at that is connected to, so a name cannot lead elsewhere in between. With a proxy, only
        the proxy knows the address.
        """
        target = URL(url)
        self.name = hashlib.sha256(url.encode()).hexdigest()
        self._origin = target.origin()
        self._session = Session(Route(target, network, None if allow_private else is_public), _IDLE)
        self._keys = keys
        self._clock = clock
        self._timeout = timeout
        route = self._session.route
        headers = {**route.headers, "Content-Type": "application/json"}
        if target.user is not None:
            headers["Authorization"] = basic_credentials(target)
        lines = [f"POST {route.prefix}{target.raw_path_qs} HTTP/1.1", *(f"{key}: {headers[key]}" for key in headers)]
        self._head = "".join(f"{line}\r\n" for line in lines).encode()

    async def post(self, event: Event) -> Answer:
        """Send an event once. Never raises because of the other side."""
        body, event_id, now = event.body, str(event.id), self._clock.now()
        timestamp = int(now.timestamp())
        own = (
            f"webhook-id: {event_id}\r\nwebhook-timestamp: {timestamp}\r\n"
            f"webhook-signature: {sign(self._keys, event_id, timestamp, body)}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            answer = await self._session.ask(self._head + own.encode() + body, self._timeout)
        except TimeoutError:
            return Refused(f"no answer within {self._timeout.total_seconds():g} s")
        except UnreachableError as error:
            return Refused(f"cannot connect: {error}")
        except BrokenConnectionError as error:
            return Refused(f"the connection broke: {error}")
        if 200 <= answer.status <= 299:
            return Accepted()
        if answer.status == 410:
            return Gone()
        wait = parse_retry_after(answer.retry_after.decode("latin-1"), now) if answer.retry_after else None
        return Refused(f"it answered {answer.status}", wait)

    async def check(self) -> None:
        """Make sure that the receiver can be connected to; nothing is sent.

        Raises:
            UnavailableError: if it cannot; the text says where and why.
        """
        try:
            await self._session.try_connection(_CHECK)
        except UnreachableError as error:
            raise UnavailableError("events", f"{self._origin}: cannot connect: {error}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
