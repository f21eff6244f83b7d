"""The message service over HTTP: one POST for each attempt, judged by its status (design, section 3)."""

import math
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import responses

import orjson
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from yarl import URL

from birthday.channel.protocol import Delivered, Letter, Outcome, Permanent, Temporary
from birthday.clock import Clock
from birthday.core.message import ErrorType
from birthday.errors import UnavailableError

_ASKS_FOR_PATIENCE = frozenset({408, 425, 429})
_REFUSES_CONTENT = frozenset({400, 422})
_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_LONGEST_RETRY_AFTER = timedelta(hours=24)
_LONGEST_CHECK_SECONDS = 5.0
_MOST_DRAINED_BYTES = 64 * 1024


def open_session(concurrency: int) -> ClientSession:
    """Return a session for ``concurrency`` sends at a time. Call it in the running loop; whoever opens it closes it.

    Proxies and netrc of the environment are not used: aiohttp would look them up in a thread for every request.
    """
    # One more connection, so that check() does not wait behind sends to a slow service. A name is looked up again
    # after 10 s, so that a service that moves is found.
    connector = TCPConnector(limit=concurrency + 1, ttl_dns_cache=10, keepalive_timeout=15)
    return ClientSession(
        connector=connector,
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": "birthday-scheduler"},
        skip_auto_headers=("Accept", "Accept-Encoding"),
    )


class HttpChannel:
    """Sends letters to ``{base_url}/send``. Nothing is ever sent again here: every attempt is the caller's."""

    def __init__(
        self, session: ClientSession, base_url: str, api_key: str | None, timeout: timedelta, clock: Clock
    ) -> None:
        """Use ``session``, which stays the caller's; ``timeout`` bounds one attempt, connecting included."""
        self._session = session
        self._base = URL(base_url)
        self._url = self._base / "send"
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._seconds = timeout.total_seconds()
        # aiohttp would round a timeout of 5 s or more up to a whole second of its loop.
        self._timeout = ClientTimeout(total=self._seconds, ceil_threshold=math.inf)
        self._clock = clock

    async def send(self, letter: Letter) -> Outcome:
        """Try once, within the timeout. Never raises for what the other side does."""
        body = orjson.dumps({"email": letter.email, "message": letter.text})
        headers = {**self._headers, "Idempotency-Key": str(letter.message_id)}
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                if not response.content.is_eof():
                    await _drain(response)
                return _outcome(response.status, response.headers.get("Retry-After"), self._clock.now())
        except TimeoutError:
            return Temporary(ErrorType.TIMEOUT, f"the message service did not answer within {self._seconds:g} s")
        except ClientError as error:
            return Temporary(ErrorType.EXTERNAL_API_ERROR, _explain(error))

    async def check(self) -> None:
        """Make sure that the service answers at all: to HEAD of the base URL, with whatever status.

        Raises:
            UnavailableError: if it does not; the text says where and why.
        """
        seconds = min(self._seconds, _LONGEST_CHECK_SECONDS)
        timeout = ClientTimeout(total=seconds, ceil_threshold=math.inf)
        # The origin alone: user, path and query may be secrets.
        where = self._base.origin()
        try:
            async with self._session.head(self._base, timeout=timeout, allow_redirects=False):
                pass
        except TimeoutError:
            raise UnavailableError("channel", f"{where}: no answer within {seconds:g} s") from None
        except ClientError as error:
            raise UnavailableError("channel", f"{where}: {_explain(error)}") from None

    async def close(self) -> None:
        """Do nothing: the session belongs to whoever opened it."""


async def _drain(response: ClientResponse) -> None:
    """Read a body of ordinary size to its end, so that the connection can be used again.

    A body that is longer, breaks off or is not there in time costs the connection, and changes nothing about the
    outcome: the status has arrived.
    """
    left = _MOST_DRAINED_BYTES
    with suppress(TimeoutError, ClientError):
        while left > 0 and not response.content.at_eof():
            left -= len(await response.content.readany())


def _outcome(status: int, retry_after: str | None, now: datetime) -> Outcome:
    """Return what a status means. The reason holds no word of the service's own: it may repeat the e-mail address."""
    if 200 <= status <= 299:
        return Delivered()
    reason = f"the message service answered {status} {responses.get(status, '')}".rstrip()
    if 500 <= status <= 599 or status in _ASKS_FOR_PATIENCE:
        wait = parse_retry_after(retry_after, now) if retry_after else None
        return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, wait, outage=status not in _ASKS_FOR_PATIENCE)
    if status in _REFUSES_CONTENT:
        return Permanent(ErrorType.VALIDATION_ERROR, reason)
    if 300 <= status <= 399:
        reason += "; redirects are not followed"
    return Permanent(ErrorType.PERMANENT_FAILURE, reason)


def parse_retry_after(text: str, now: datetime) -> timedelta | None:
    """Return how long Retry-After asks to wait (RFC 9110, section 10.2.3): 24 h at most, None if it is neither form."""
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        at = _parse_http_date(text)
        if at is None:
            return None
        seconds = (at - now).total_seconds()
    return timedelta(seconds=min(max(seconds, 0), _LONGEST_RETRY_AFTER.total_seconds()))


def _parse_http_date(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _explain(error: ClientError) -> str:
    """Return why there was no answer, from what is ours or the system's to say: never from what the service sent."""
    if isinstance(error, ClientConnectorError):
        cause = error.os_error
        return f"cannot connect: {type(cause).__name__}: {cause.strerror or cause}"
    return f"the connection broke: {type(error).__name__}"
