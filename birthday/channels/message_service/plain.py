"""The plain client of the message service: aiohttp, behind the same interface as our own client.

It is kept for comparison, and as a replacement if our own turns out to be wrong. The contract suite runs both.
"""

import asyncio
from datetime import timedelta
from typing import Final

import aiohttp
from yarl import URL

from birthday.channels.message_service.connection import BrokenConnectionError, Response
from birthday.channels.message_service.route import Route, UnreachableError, explain, lacking

_MOST_BODY_BYTES: Final = 128 * 1024
_IDLE_SECONDS: Final = 15.0
_CONNECTING: Final = 0.9
"""The share of ``patience`` for connecting. A send that fails to connect in this time has sent nothing."""


class PlainSession:
    """A ``Client`` that uses aiohttp. Unlike our own, it rejects an answer whose headers are invalid."""

    def __init__(self, route: Route, _most_idle: int) -> None:
        self.route = route
        self._session: aiohttp.ClientSession | None = None
        self._asking = 0
        self._closed = False

    async def ask(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` once; see ``Client``."""
        if self._session is None:
            self._session = self._open()
        self._asking += 1
        try:
            return await self._ask(self._session, request, patience)
        finally:
            self._asking -= 1
            if self._closed:
                await self.close()

    async def ask_alone(self, request: bytes, patience: timedelta) -> Response:
        """Send ``request`` over a connection of its own; see ``Client``."""
        async with self._open() as session:
            return await self._ask(session, request, patience)

    async def close(self) -> None:
        """Close the connections, now or as soon as all requests have their answers."""
        self._closed = True
        if self._session is not None and not self._asking:
            session, self._session = self._session, None
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=self.route.tls or True)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)

    async def _ask(self, session: aiohttp.ClientSession, request: bytes, patience: timedelta) -> Response:
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        method, target, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        # aiohttp makes this header itself, from the URL of the proxy.
        headers.pop("Proxy-Authorization", None)
        seconds = patience.total_seconds()
        answer = None
        try:
            async with (
                asyncio.timeout(seconds),
                session.request(
                    method,
                    URL(f"{self.route.origin}{target.removeprefix(self.route.prefix)}", encoded=True),
                    headers=headers,
                    data=body or None,
                    allow_redirects=False,
                    proxy=self.route.proxy,
                    skip_auto_headers=("Accept-Encoding", "Content-Type"),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=seconds * _CONNECTING),
                ) as response,
            ):
                raw = {name.lower(): value for name, value in response.raw_headers}
                answer = Response(response.status, raw.get(b"retry-after"))
                await _read(response)
        except aiohttp.ConnectionTimeoutError:
            raise UnreachableError("no connection in time") from None
        except aiohttp.ClientHttpProxyError as error:
            raise UnreachableError(f"the proxy opens no tunnel, it answered {error.status}", error.status) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise UnreachableError(f"certificate refused: {error.certificate_error}") from error
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(explain(error.os_error), lacks=lacking(error.os_error)) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            if answer is None and isinstance(error, TimeoutError):
                raise
            if answer is None:
                text = "the answer is no HTTP" if isinstance(error, aiohttp.ClientResponseError) else None
                raise BrokenConnectionError(text or "it was closed by the other side") from error
        if answer.status < 200:
            raise BrokenConnectionError("the answer is in another protocol")
        return answer


async def _read(response: aiohttp.ClientResponse) -> None:
    """Read the body so that the connection can be used again, unless it is too long."""
    count = 0
    async for piece in response.content.iter_any():
        count += len(piece)
        if count > _MOST_BODY_BYTES:
            response.close()
            return
