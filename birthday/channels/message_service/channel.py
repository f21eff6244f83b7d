"""The message service over HTTP: one POST for each attempt, judged by its status (design, section 3)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import responses

import orjson
from yarl import URL

from birthday.channels.breaker import CircuitBreaker
from birthday.channels.message_service.connection import BrokenConnectionError, Response
from birthday.channels.message_service.route import Network, Route, UnreachableError, basic_credentials
from birthday.channels.message_service.session import Client, Session
from birthday.channels.outcomes import Delivered, Greeting, Outcome, Permanent, Temporary, Unable
from birthday.clock import Clock
from birthday.config import mask_path
from birthday.core.message import ErrorType
from birthday.core.signing import sign
from birthday.errors import UnavailableError

_ASKS_FOR_PATIENCE = frozenset({408, 425, 429})
_REFUSES_CONTENT = frozenset({400, 422})
_REFUSES_EVERYBODY = frozenset({401, 403, 404, 405, 407, 410, *range(300, 400)})
"""Answers to a wrong key, URL or proxy. They are about one greeting only if others are accepted (design, section 3)."""
_REFUSES_KEYS = frozenset({401, 403, 407})
_SAYS_NO_MORE = frozenset({401, 407})
"""Of these, the statuses that refuse a key even if a request without a key gets the same answer."""
_WITHOUT_ANSWER = frozenset({502, 504})
"""Answers of a gateway that passed the greeting on, and got no answer or one that it did not understand."""
_SECONDS = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_LONGEST_RETRY_AFTER = timedelta(hours=24)
_LONGEST_CHECK = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Service:
    """Where the message service is, and how it knows us. ``path`` is appended to the URL, and may have a query.

    With ``signing_keys``, requests are signed by each of them.
    """

    url: str
    api_key: str | None = None
    path: str = "/send"
    signing_keys: tuple[bytes, ...] = ()


class HttpChannel:
    """Sends greetings to one URL. It never retries: the caller decides about every attempt."""

    api = "message-service"

    def __init__(
        self,
        service: Service,
        network: Network,
        concurrency: int,
        timeout: timedelta,
        clock: Clock,
        client: Callable[[Route, int], Client] = Session,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """Keep up to ``concurrency`` connections; ``timeout`` bounds one attempt, connecting included.

        Raises:
            OSError: the file of certificate authorities cannot be read, or holds none.
        """
        self.breaker = breaker
        self._base = URL(service.url)
        self._session = client(Route(self._base, network), concurrency)
        self._authorization: dict[str, str] = {}
        if service.api_key:
            self._authorization = {"Authorization": f"Bearer {service.api_key}"}
        elif self._base.user is not None:
            self._authorization = {"Authorization": basic_credentials(self._base)}
        headers = {"Content-Type": "application/json", **self._authorization}
        path = URL(service.path, encoded=True)
        # yarl drops the query when it changes the path. The service may need the query: a tenant, or a version.
        target = self._base.with_path(self._base.raw_path.rstrip("/") + path.raw_path, encoded=True)
        self._target = target.with_query(self._base.query).extend_query(path.query)
        self._keys = service.signing_keys
        self._head = self._request_head("POST", self._target, headers)
        self._timeout = timeout
        self._clock = clock

    async def send(self, greeting: Greeting) -> Outcome:
        """Try once, within the timeout. Never raises because of the other side."""
        key, body = str(greeting.message_id), greeting.payload
        if body is None:
            body = orjson.dumps({"email": greeting.email, "message": greeting.text})
        trace = b"traceparent: %b\r\n" % greeting.traceparent.encode() if greeting.traceparent else b""
        signature = self._sign(key, body) if self._keys else b""
        own = b"%b%bIdempotency-Key: %b\r\nContent-Length: %d\r\n\r\n" % (trace, signature, key.encode(), len(body))
        try:
            answer = await self._session.ask(self._head + own + body, self._timeout)
        except TimeoutError:
            seconds = self._timeout.total_seconds()
            return Temporary(ErrorType.TIMEOUT, f"the message service did not answer within {seconds:g} s")
        except UnreachableError as error:
            if error.lacks:
                return Unable(f"cannot connect: {error}", error.lacks)
            return Temporary(
                ErrorType.EXTERNAL_API_ERROR,
                f"cannot connect: {error}",
                status=error.status,
                refused=error.status in _REFUSES_EVERYBODY,
                handed_over=False,
            )
        except BrokenConnectionError as error:
            return Temporary(ErrorType.EXTERNAL_API_ERROR, f"the connection broke: {error}", answer_lost=True)
        return _outcome(answer, self._clock)

    def _sign(self, key: str, body: bytes) -> bytes:
        timestamp = int(self._clock.now().timestamp())
        signature = sign(self._keys, key, timestamp, body)
        return f"webhook-id: {key}\r\nwebhook-timestamp: {timestamp}\r\nwebhook-signature: {signature}\r\n".encode()

    def _request_head(self, method: str, url: URL, headers: Mapping[str, str]) -> bytes:
        route = self._session.route
        lines = [f"{method} {route.prefix}{url.raw_path_qs} HTTP/1.1"]
        named = {**route.headers, "User-Agent": "birthday-scheduler", "Accept": "*/*", **headers}
        lines += [f"{name}: {value}" for name, value in named.items()]
        return "\r\n".join([*lines, ""]).encode("ascii")

    @property
    def url(self) -> str:
        """The URL that greetings go to, without its secret parts."""
        return str(self._target.with_user(None).with_query(None).with_path(mask_path(self._target.raw_path)))

    async def check(self) -> None:
        """Make sure that the service answers HEAD of the base URL, with any status."""
        await self._head_of(self._base, {})

    async def try_key(self) -> str:
        """Test the key without sending a message: HEAD of the URL for greetings, with the key and without it.

        Returns:
            The result, in words.

        Raises:
            UnavailableError: if the key is refused, or there is no answer.
        """
        if not self._authorization:
            return "no key is set, and whether one is needed could not be tried"
        given = await self._head_of(self._target, self._authorization)
        bare = await self._head_of(self._target, {})
        if given in _REFUSES_KEYS and (given != bare or given in _SAYS_NO_MORE):
            raise UnavailableError("channel", f"{self._base.origin()}: the key is refused: HEAD is answered {given}")
        if bare in _REFUSES_KEYS:
            return f"the key is accepted: HEAD is answered {given}, and {bare} without it"
        return (
            f"the key could not be tried: HEAD is answered {given} with it and {bare} without it, so only a message "
            "shows whether key and path are right"
        )

    async def _head_of(self, url: URL, headers: Mapping[str, str]) -> int:
        timeout = min(self._timeout, _LONGEST_CHECK)
        # Only the origin, because user, path and query may be secret.
        where = self._base.origin()
        request = self._request_head("HEAD", url, {"Connection": "close", **headers}) + b"\r\n"
        try:
            return (await self._session.ask_alone(request, timeout)).status
        except TimeoutError:
            seconds = timeout.total_seconds()
            raise UnavailableError("channel", f"{where}: no answer within {seconds:g} s") from None
        except UnreachableError as error:
            raise UnavailableError("channel", f"{where}: cannot connect: {error}") from None
        except BrokenConnectionError as error:
            raise UnavailableError("channel", f"{where}: the connection broke: {error}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def _outcome(answer: Response, clock: Clock) -> Outcome:
    """Return what an answer means. The reason never quotes the service, which may repeat the e-mail address."""
    status = answer.status
    if 200 <= status <= 299:
        return Delivered(status)
    reason = f"the message service answered {status} {responses.get(status, '')}".rstrip()
    if 500 <= status <= 599 or status in _ASKS_FOR_PATIENCE:
        # An invalid Retry-After is ignored. The status still counts.
        text = (answer.retry_after or b"").decode("latin-1")
        wait = parse_retry_after(text, clock.now()) if text else None
        outage = status not in _ASKS_FOR_PATIENCE
        return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, wait, outage, status, status in _WITHOUT_ANSWER)
    if status in _REFUSES_CONTENT:
        return Permanent(ErrorType.VALIDATION_ERROR, reason, status)
    if 300 <= status <= 399:
        reason += "; redirects are not followed"
    return Permanent(ErrorType.PERMANENT_FAILURE, reason, status, status in _REFUSES_EVERYBODY)


def parse_retry_after(text: str, now: datetime) -> timedelta | None:
    """Return the wait that Retry-After asks for (RFC 9110, section 10.2.3): at most 24 h; None if it is invalid."""
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
