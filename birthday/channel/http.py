"""The message service over HTTP: one POST for each attempt, judged by its status (design, section 3)."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import responses

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import RequestError
from pyreqwest.http import Url
from pyreqwest.response import Response
from yarl import URL

from birthday.channel.protocol import Delivered, Letter, Outcome, Permanent, Temporary
from birthday.clock import Clock
from birthday.core.message import ErrorType
from birthday.errors import UnavailableError

_ASKS_FOR_PATIENCE = frozenset({408, 425, 429})
_REFUSES_CONTENT = frozenset({400, 422})
_WITHOUT_ANSWER = frozenset({502, 504})
"""Said by a gateway that has passed the letter on and got no answer, or none that it understood."""
_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_LONGEST_RETRY_AFTER = timedelta(hours=24)
_LONGEST_CHECK = timedelta(seconds=5)
_MOST_DRAINED_BYTES = 64 * 1024
_IDLE = timedelta(seconds=15)
"""How long an unused connection is kept. A new one looks the name up again, so that a service that moves is found."""


def open_session(concurrency: int) -> Client:
    """Return a session for ``concurrency`` sends at a time; whoever opens it closes it.

    Proxies and trusted certificates are those of the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY,
    SSL_CERT_FILE.
    """
    return (
        ClientBuilder()
        .user_agent("birthday-scheduler")
        .follow_redirects(enable=False)
        .pool_max_idle_per_host(concurrency)
        .pool_idle_timeout(_IDLE)
        .gzip(enable=False)
        .brotli(enable=False)
        .zstd(enable=False)
        .deflate(enable=False)
        .build()
    )


class HttpChannel:
    """Sends letters to ``{base_url}/send``. Nothing is ever sent again here: every attempt is the caller's."""

    def __init__(self, session: Client, base_url: str, api_key: str | None, timeout: timedelta, clock: Clock) -> None:
        """Use ``session``, which stays the caller's; ``timeout`` bounds one attempt, connecting included."""
        self._session = session
        self._base = URL(base_url)
        self._url = Url(str(self._base / "send"))
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout = timeout
        self._clock = clock

    async def send(self, letter: Letter) -> Outcome:
        """Try once, within the timeout. Never raises for what the other side does."""
        headers = {**self._headers, "Idempotency-Key": str(letter.message_id)}
        if letter.traceparent:
            headers["traceparent"] = letter.traceparent
        request = (
            self._session.post(self._url)
            .headers(headers)
            .body_bytes(orjson.dumps({"email": letter.email, "message": letter.text}))
            .timeout(self._timeout)
            # The answer is here as soon as its status is: what becomes of the body must not hide it.
            .streamed_read_buffer_limit(0)
            .build_streamed()
        )
        try:
            async with request as response:
                # Read to its end, so that the connection can be used again. A body that is long, breaks off or is not
                # there in time costs the connection.
                with suppress(RequestError):
                    await response.body_reader.read(_MOST_DRAINED_BYTES)
                return _outcome(response.status, _retry_after(response), self._clock.now())
        except TimeoutError:
            seconds = self._timeout.total_seconds()
            return Temporary(ErrorType.TIMEOUT, f"the message service did not answer within {seconds:g} s")
        except RequestError as error:
            # Only what fails to connect has certainly not been sent.
            connected = not _failed_to_connect(error)
            return Temporary(ErrorType.EXTERNAL_API_ERROR, _explain(error), answer_lost=connected)

    @property
    def url(self) -> str:
        """Where letters go, without the user and password."""
        return str((self._base / "send").with_user(None))

    async def check(self) -> None:
        """Make sure that the service answers at all: to HEAD of the base URL, with whatever status.

        Raises:
            UnavailableError: if it does not; the text says where and why.
        """
        timeout = min(self._timeout, _LONGEST_CHECK)
        # The origin alone: user, path and query may be secrets.
        where = self._base.origin()
        try:
            await self._session.head(str(self._base)).timeout(timeout).build().send()
        except TimeoutError:
            seconds = timeout.total_seconds()
            raise UnavailableError("channel", f"{where}: no answer within {seconds:g} s") from None
        except RequestError as error:
            raise UnavailableError("channel", f"{where}: {_explain(error)}") from None

    async def close(self) -> None:
        """Do nothing: the session belongs to whoever opened it."""


def _retry_after(response: Response) -> str | None:
    """Return the header if it is there and text: one that is not says nothing, and takes nothing from the status."""
    with suppress(ValueError):
        return response.get_header("Retry-After")
    return None


def _outcome(status: int, retry_after: str | None, now: datetime) -> Outcome:
    """Return what a status means. The reason holds no word of the service's own: it may repeat the e-mail address."""
    if 200 <= status <= 299:
        return Delivered(status)
    reason = f"the message service answered {status} {responses.get(status, '')}".rstrip()
    if 500 <= status <= 599 or status in _ASKS_FOR_PATIENCE:
        wait = parse_retry_after(retry_after, now) if retry_after else None
        outage = status not in _ASKS_FOR_PATIENCE
        return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, wait, outage, status, status in _WITHOUT_ANSWER)
    if status in _REFUSES_CONTENT:
        return Permanent(ErrorType.VALIDATION_ERROR, reason, status)
    if 300 <= status <= 399:
        reason += "; redirects are not followed"
    return Permanent(ErrorType.PERMANENT_FAILURE, reason, status)


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


def _explain(error: RequestError) -> str:
    """Return why there was no answer, from what is ours or the system's to say: never from what the service sent."""
    causes = _causes(error)
    what = "cannot connect" if _failed_to_connect(error) else "the connection broke"
    return f"{what}: {causes[-1] if causes else type(error).__name__}"


def _failed_to_connect(error: RequestError) -> bool:
    return "client error (Connect)" in _causes(error)


def _causes(error: RequestError) -> list[str]:
    """Return the causes from the outermost to the innermost, without the first: it names the URL, a secret perhaps."""
    return [cause["message"] for cause in error.details["causes"] or ()][1:]
