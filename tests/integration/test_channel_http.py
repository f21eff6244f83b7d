"""The HTTP channel against a real HTTP server: what goes out, and what each answer means."""

import asyncio
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from birthday.channels import Delivered, Greeting, Outcome, Permanent, Temporary
from birthday.channels.message_service.channel import HttpChannel, Service, parse_retry_after
from birthday.channels.message_service.plain import PlainSession
from birthday.channels.message_service.route import Network
from birthday.channels.message_service.session import Session
from birthday.clock import SystemClock
from birthday.core.message import ErrorType
from birthday.core.signing import parse_signing_secrets
from birthday.errors import UnavailableError
from tests.support.clock import NINE_O_CLOCK, ManualClock
from tests.support.message_service import Answer, Fault, MessageService

GREETING = Greeting(
    UUID("0198c0de-0000-7000-8000-00000000ada1"), "ada@example.com", "Hey, Ada Lovelace it's your birthday"
)
SOON = timedelta(milliseconds=200)
LATE = timedelta(seconds=30)


class Connect(Protocol):
    """Returns a channel to the service at ``url``, whose clock stands at nine o'clock on 1 March 2026."""

    def __call__(
        self, url: str, api_key: str | None = None, timeout: timedelta = timedelta(seconds=10), slots: int = 10
    ) -> HttpChannel:
        """Return it."""
        ...


@pytest.fixture(params=[Session, PlainSession], ids=["own", "plain"])
async def channel_to(request: pytest.FixtureRequest) -> AsyncIterator[Connect]:
    """Channels such as the program opens, for ten sends at a time. They are closed after the test."""
    channels = []

    def connect(
        url: str, api_key: str | None = None, timeout: timedelta = timedelta(seconds=10), slots: int = 10
    ) -> HttpChannel:
        channels.append(HttpChannel(Service(url, api_key), Network(), slots, timeout, ManualClock(), request.param))
        return channels[-1]

    yield connect
    for channel in channels:
        await channel.close()


def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class TestWhatGoesOut:
    """The request, to the letter of the contract."""

    async def test_request(self, channel_to: Connect, message_service: MessageService) -> None:
        """A greeting is one POST to /send with exactly two members of JSON, the API's key and that of the message."""
        outcome = await channel_to(message_service.url, api_key="s3cret").send(GREETING)

        assert outcome == Delivered()
        [received] = message_service.requests
        assert (received.method, received.path) == ("POST", "/send")
        assert received.body == b'{"email":"ada@example.com","message":"Hey, Ada Lovelace it\'s your birthday"}'
        assert received.headers["Content-Type"] == "application/json"
        assert received.headers["Authorization"] == "Bearer s3cret"
        assert received.headers["Idempotency-Key"] == "0198c0de-0000-7000-8000-00000000ada1"

    async def test_no_api_key(self, channel_to: Connect, message_service: MessageService) -> None:
        """Without an API key there is no Authorization header."""
        await channel_to(message_service.url).send(GREETING)

        assert "Authorization" not in message_service.requests[0].headers

    @pytest.mark.parametrize(
        ("base", "path"),
        [
            ("", "/send"),
            ("/", "/send"),
            ("/v1/mail", "/v1/mail/send"),
            ("/v1/mail/", "/v1/mail/send"),
            ("?tenant=7&mode=a+b", "/send?tenant=7&mode=a+b"),
            ("/v1/?tenant=7", "/v1/send?tenant=7"),
        ],
    )
    async def test_base_url(self, channel_to: Connect, message_service: MessageService, base: str, path: str) -> None:
        """The base URL may have a path and a query, which stays, and a slash at its end changes nothing."""
        await channel_to(message_service.url + base).send(GREETING)

        assert message_service.requests[0].path == path

    @pytest.mark.parametrize(
        ("base", "path", "target"),
        [
            ("", "/v3/mail/send", "/v3/mail/send"),
            ("/v1/", "/", "/v1/"),
            ("/api?tenant=7", "/a%2Fb/invoke?sig=x%2By&v=1", "/api/a%2Fb/invoke?tenant=7&sig=x%2By&v=1"),
        ],
    )
    async def test_path_of_the_settings(
        self, message_service: MessageService, base: str, path: str, target: str
    ) -> None:
        """MESSAGE_SERVICE_PATH takes the place of /send; a query of its own is added to that of the URL."""
        channel = HttpChannel(Service(message_service.url + base, path=path), Network(), 1, LATE, ManualClock())

        await channel.send(GREETING)
        await channel.close()

        assert message_service.requests[0].path == target
        assert "sig" not in channel.url

    async def test_payload(self, channel_to: Connect, message_service: MessageService) -> None:
        """A payload is the whole body, byte for byte; the headers are the same as without one."""
        payload = '{ "to": "ada@example.com",\n "text": "Hé" }\n'.encode()
        channel = channel_to(message_service.url, api_key="s3cret")

        await channel.send(GREETING._replace(payload=payload))
        await channel.send(GREETING)

        with_payload, without = message_service.requests
        assert with_payload.body == payload
        assert with_payload.headers["Content-Type"] == "application/json"
        assert {**with_payload.headers, "Content-Length": ""} == {**without.headers, "Content-Length": ""}

    async def test_signatures(self, message_service: MessageService) -> None:
        """Each secret signs id, time and body, so that either verifies a request while one replaces the other."""
        old, new = f"whsec_{b64encode(b'o' * 24).decode()}", f"whsec_{b64encode(b'n' * 32).decode()}"
        service = Service(message_service.url, signing_keys=parse_signing_secrets(f"{old} {new}"))
        channel = HttpChannel(service, Network(), 1, LATE, SystemClock())

        await channel.send(GREETING)
        await channel.send(GREETING._replace(payload=b'{"text":"Hi"}'))
        await channel.close()

        for received in message_service.requests:
            assert received.headers["webhook-id"] == received.key
            for secret in (old, new):
                assert Webhook(secret).verify(received.body, dict(received.headers)) == received.json
            with pytest.raises(WebhookVerificationError):
                Webhook(old).verify(received.body + b" ", dict(received.headers))

    async def test_unicode(self, channel_to: Connect, message_service: MessageService) -> None:
        """Any character of a name arrives as it was."""
        text = 'Hey, Þórdís "Dísa" Łukasiewicz-山田\\ 🎂 it\'s your birthday'
        await channel_to(message_service.url).send(Greeting(GREETING.message_id, "þórdís@example.com", text))

        assert message_service.requests[0].json == {"email": "þórdís@example.com", "message": text}

    async def test_same_key_on_every_attempt(self, channel_to: Connect, message_service: MessageService) -> None:
        """Each attempt of one message carries the same Idempotency-Key, whatever became of the one before."""
        message_service.answer_with(Answer(503), Answer(fault=Fault.CLOSE), Answer(200))
        channel = channel_to(message_service.url)

        for _ in range(3):
            await channel.send(GREETING)

        assert {key: len(group) for key, group in message_service.by_key().items()} == {str(GREETING.message_id): 3}

    async def test_no_cookies(self, channel_to: Connect, message_service: MessageService) -> None:
        """A cookie that the service sets is not sent back: greetings have nothing to do with each other."""
        message_service.answer_with(Answer(headers={"Set-Cookie": "seen=ada; Path=/"}))
        # By name: cookies of bare addresses would not be kept in any case.
        channel = channel_to(message_service.url.replace("127.0.0.1", "localhost"))

        await channel.send(GREETING)
        await channel.send(GREETING)

        assert "Cookie" not in message_service.requests[1].headers


def temporary(status: int, phrase: str, *, outage: bool) -> Temporary:
    """Return what is expected of an answer after which the greeting may be sent again."""
    reason = f"the message service answered {status} {phrase}".rstrip()
    return Temporary(ErrorType.EXTERNAL_API_ERROR, reason, None, outage=outage, answer_lost=status in {502, 504})


def permanent(status: int, phrase: str, error_type: ErrorType = ErrorType.PERMANENT_FAILURE) -> Permanent:
    """Return what is expected of an answer after which the greeting is not sent again."""
    return Permanent(error_type, f"the message service answered {status} {phrase}".rstrip())


class TestWhatAnAnswerMeans:
    """The outcome of each status."""

    @pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
    async def test_delivered(self, channel_to: Connect, message_service: MessageService, status: int) -> None:
        """Every 2xx is delivered."""
        message_service.answer_with(Answer(status, body=b""))

        assert await channel_to(message_service.url).send(GREETING) == Delivered()

    @pytest.mark.parametrize(
        "expected",
        [
            temporary(408, "Request Timeout", outage=False),
            temporary(425, "Too Early", outage=False),
            temporary(429, "Too Many Requests", outage=False),
            temporary(500, "Internal Server Error", outage=True),
            temporary(501, "Not Implemented", outage=True),
            temporary(502, "Bad Gateway", outage=True),
            temporary(503, "Service Unavailable", outage=True),
            temporary(504, "Gateway Timeout", outage=True),
            temporary(599, "", outage=True),
            permanent(400, "Bad Request", ErrorType.VALIDATION_ERROR),
            permanent(422, "Unprocessable Entity", ErrorType.VALIDATION_ERROR),
            permanent(401, "Unauthorized"),
            permanent(403, "Forbidden"),
            permanent(404, "Not Found"),
            permanent(409, "Conflict"),
            permanent(410, "Gone"),
            permanent(413, "Request Entity Too Large"),
            permanent(499, ""),
            permanent(600, ""),
            permanent(300, "Multiple Choices; redirects are not followed"),
            permanent(301, "Moved Permanently; redirects are not followed"),
            permanent(304, "Not Modified; redirects are not followed"),
            permanent(307, "Temporary Redirect; redirects are not followed"),
        ],
        ids=lambda outcome: outcome.reason.split()[4],
    )
    async def test_status(
        self, channel_to: Connect, message_service: MessageService, expected: Temporary | Permanent
    ) -> None:
        """A status is temporary or permanent, has its error type, and speaks of an outage or not.

        A gateway that got no answer does not know whether the greeting has arrived.
        """
        status = int(expected.reason.split()[4])
        message_service.answer_with(Answer(status, body=b"" if status == 304 else b"{}"))

        assert await channel_to(message_service.url).send(GREETING) == expected

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_redirect(self, channel_to: Connect, message_service: MessageService, status: int) -> None:
        """A redirect is not followed, not even to the same host."""
        message_service.answer_with(Answer(status, headers={"Location": message_service.url + "/elsewhere"}))

        outcome = await channel_to(message_service.url).send(GREETING)

        assert isinstance(outcome, Permanent)
        assert [received.path for received in message_service.requests] == ["/send"]

    @pytest.mark.parametrize("status", [400, 422, 429, 503])
    async def test_no_personal_data(self, channel_to: Connect, message_service: MessageService, status: int) -> None:
        """The reason repeats nothing that the service said, neither body nor phrase: both may hold the address."""
        message_service.answer_with(
            Answer(status, body=b'{"error":"ada@example.com is unknown"}', reason="ada@example.com is unknown")
        )

        outcome = await channel_to(message_service.url).send(GREETING)

        assert isinstance(outcome, Temporary | Permanent)
        assert "ada" not in outcome.reason.lower()

    async def test_no_http(self, channel_to: Connect) -> None:
        """What answers in something else than HTTP is an outage, and the reason does not repeat it."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"hello ada@example.com\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            outcome = await channel_to(f"http://127.0.0.1:{port}").send(GREETING)

        assert outcome == Temporary(
            ErrorType.EXTERNAL_API_ERROR, "the connection broke: the answer is no HTTP", answer_lost=True
        )


class TestRetryAfter:
    """How long the service asks to wait."""

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
    async def test_seconds(self, channel_to: Connect, message_service: MessageService, status: int) -> None:
        """A number of seconds is obeyed with every temporary answer."""
        message_service.answer_with(Answer(status, headers={"Retry-After": "120"}))

        outcome = await channel_to(message_service.url).send(GREETING)

        assert isinstance(outcome, Temporary)
        assert outcome.retry_after == timedelta(seconds=120)

    async def test_date(self, channel_to: Connect, message_service: MessageService) -> None:
        """A date is obeyed relative to the clock that was passed in."""
        message_service.answer_with(Answer(503, headers={"Retry-After": "Sun, 01 Mar 2026 09:01:30 GMT"}))

        outcome = await channel_to(message_service.url).send(GREETING)

        assert isinstance(outcome, Temporary)
        assert outcome.retry_after == timedelta(seconds=90)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("0", timedelta()),
            ("1", timedelta(seconds=1)),
            ("1.5", timedelta(seconds=1.5)),
            ("-5", timedelta()),
            ("86400", timedelta(hours=24)),
            ("86401", timedelta(hours=24)),
            ("9" * 5000, timedelta(hours=24)),
            ("Sun, 01 Mar 2026 09:00:30 GMT", timedelta(seconds=30)),
            ("Sunday, 01-Mar-26 09:00:30 GMT", timedelta(seconds=30)),
            ("Sun Mar  1 09:00:30 2026", timedelta(seconds=30)),
            ("Sun, 01 Mar 2026 10:00:30 +0100", timedelta(seconds=30)),
            ("Sun, 01 Mar 2026 08:59:59 GMT", timedelta()),
            ("Fri, 31 Dec 9999 23:59:59 GMT", timedelta(hours=24)),
            ("Fri, 31 Dec 9999 23:59:59 -2359", None),
            ("Fri, 32 Dec 2026 23:59:59 GMT", None),
            ("2026-03-01T09:00:30Z", None),
            ("soon", None),
            ("٣", None),
            ("1e9", None),
            ("inf", None),
            ("", None),
        ],
    )
    def test_forms(self, text: str, expected: timedelta | None) -> None:
        """Both forms of RFC 9110 are understood; the past means at once, a day is the most, nonsense says nothing."""
        assert parse_retry_after(text, NINE_O_CLOCK) == expected

    def test_date_without_zone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The oldest form of a date names no zone: it is UTC, wherever the host is."""
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TZ", "Asia/Tokyo")
            time.tzset()
            waits = parse_retry_after("Sun Mar  1 09:00:30 2026", NINE_O_CLOCK)
        time.tzset()

        assert waits == timedelta(seconds=30)

    async def test_nonsense(self, channel_to: Connect, message_service: MessageService) -> None:
        """Nonsense in Retry-After leaves the answer what it is."""
        message_service.answer_with(Answer(503, headers={"Retry-After": "when the moon is full"}))

        outcome = await channel_to(message_service.url).send(GREETING)

        assert outcome == temporary(503, "Service Unavailable", outage=True)

    @pytest.mark.parametrize("status", [200, 503])
    async def test_no_text(self, channel_to: Connect, status: int) -> None:
        """What is no text in Retry-After leaves the answer what it is, too."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %d X\r\nRetry-After: \xe4\xff\r\nContent-Length: 0\r\n\r\n" % status)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            outcome = await channel_to(f"http://127.0.0.1:{port}").send(GREETING)

        assert outcome == (Delivered() if status == 200 else temporary(503, "Service Unavailable", outage=True))


class TestNoAnswer:
    """What does not arrive in time, or not at all."""

    @pytest.mark.parametrize("answer", [Answer(fault=Fault.HANG), Answer(delay=LATE)], ids=["silence", "too late"])
    async def test_timeout(self, channel_to: Connect, message_service: MessageService, answer: Answer) -> None:
        """No answer within the timeout is temporary and speaks of an outage, and it does not take longer than that."""
        message_service.answer_with(answer)
        channel = channel_to(message_service.url, timeout=SOON)
        began = time.monotonic()

        outcome = await channel.send(GREETING)

        assert outcome == Temporary(ErrorType.TIMEOUT, "the message service did not answer within 0.2 s")
        assert outcome.may_have_arrived
        assert 0.15 < time.monotonic() - began < 5

    async def test_timeout_while_connecting(self, channel_to: Connect) -> None:
        """The timeout bounds connecting too: here to a port whose queue of connections is full."""
        with ExitStack() as stack:
            full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(4):
                queued = stack.enter_context(socket.socket())
                queued.settimeout(0)
                queued.connect_ex(full.getsockname())
            channel = channel_to(f"http://127.0.0.1:{full.getsockname()[1]}", timeout=SOON)

            outcome = await channel.send(GREETING)

        assert outcome == Temporary(ErrorType.EXTERNAL_API_ERROR, "cannot connect: no connection in time")
        assert not outcome.may_have_arrived

    async def test_refused(self, channel_to: Connect) -> None:
        """A refused connection is temporary, speaks of an outage and says why; the greeting cannot have arrived."""
        outcome = await channel_to(f"http://127.0.0.1:{closed_port()}").send(GREETING)

        assert isinstance(outcome, Temporary)
        assert not outcome.may_have_arrived
        assert (outcome.error_type, outcome.outage) == (ErrorType.EXTERNAL_API_ERROR, True)
        assert outcome.reason == "cannot connect: Connection refused"

    async def test_closed(self, channel_to: Connect, message_service: MessageService) -> None:
        """A connection that is closed in place of an answer is temporary, and the greeting may have arrived."""
        message_service.answer_with(Answer(fault=Fault.CLOSE))

        outcome = await channel_to(message_service.url).send(GREETING)

        assert isinstance(outcome, Temporary)
        assert outcome.may_have_arrived
        assert (outcome.error_type, outcome.outage) == (ErrorType.EXTERNAL_API_ERROR, True)
        assert outcome.reason.startswith("the connection broke: ")

    async def test_never_sent_again_in_silence(self, channel_to: Connect, message_service: MessageService) -> None:
        """A kept connection that is closed under a request is no reason to repeat it unasked."""
        message_service.answer_with(Answer(200), Answer(fault=Fault.CLOSE))
        channel = channel_to(message_service.url)

        outcomes = [await channel.send(GREETING), await channel.send(GREETING)]

        assert [type(outcome) for outcome in outcomes] == [Delivered, Temporary]
        assert len(message_service.requests) == 2

    async def test_service_comes_back(self, channel_to: Connect, message_service: MessageService) -> None:
        """After the service was away, the next attempt reaches it."""
        channel = channel_to(message_service.url)
        outcomes: list[Outcome] = [await channel.send(GREETING)]

        await message_service.stop()
        outcomes.append(await channel.send(GREETING))
        await message_service.start()
        outcomes.append(await channel.send(GREETING))

        assert [type(outcome) for outcome in outcomes] == [Delivered, Temporary, Delivered]

    async def test_cancelled(self, channel_to: Connect, message_service: MessageService) -> None:
        """Cancelling a send ends it at once, and the channel goes on with the next."""
        message_service.answer_with(Answer(fault=Fault.HANG))
        channel = channel_to(message_service.url)
        sending = asyncio.create_task(channel.send(GREETING))
        await message_service.wait_for(1)

        sending.cancel()

        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await channel.send(GREETING) == Delivered()


class TestBodies:
    """The body of an answer decides nothing, and one of ordinary size keeps the connection."""

    @pytest.mark.parametrize("status", [200, 422, 503])
    @pytest.mark.parametrize(
        ("size", "pause"), [(0, timedelta()), (2, timedelta()), (2, SOON), (60_000, SOON)], ids=str
    )
    async def test_connection_reused(
        self, channel_to: Connect, message_service: MessageService, status: int, size: int, pause: timedelta
    ) -> None:
        """Greetings that follow each other share a connection, however they were answered, even if bit by bit."""
        message_service.answer_with(Answer(status, body=b"x" * size, pause=pause))
        channel = channel_to(message_service.url)

        await channel.send(GREETING)
        await channel.send(GREETING)

        assert len({received.client_port for received in message_service.requests}) == 1

    async def test_big(self, channel_to: Connect, message_service: MessageService) -> None:
        """A huge body is not read to its end: it costs the connection, not the outcome."""
        message_service.answer_with(Answer(body=b"x" * 50_000_000))
        channel = channel_to(message_service.url)

        outcomes = [await channel.send(GREETING), await channel.send(GREETING)]

        assert outcomes == [Delivered(), Delivered()]
        assert len({received.client_port for received in message_service.requests}) == 2

    @pytest.mark.parametrize("fault", [Fault.CUT, Fault.STALL])
    async def test_broken(self, channel_to: Connect, message_service: MessageService, fault: Fault) -> None:
        """Once the status has arrived, a body that breaks off or never ends changes nothing."""
        message_service.answer_with(Answer(200, body=b"x" * 100, fault=fault), Answer(503, body=b"{}", fault=fault))
        channel = channel_to(message_service.url, timeout=SOON)

        outcomes = [await channel.send(GREETING), await channel.send(GREETING)]

        assert outcomes == [Delivered(), temporary(503, "Service Unavailable", outage=True)]


class TestCheck:
    """Whether the service can be reached."""

    @pytest.mark.parametrize("status", [200, 302, 401, 404, 405, 500, 503])
    async def test_reachable(self, channel_to: Connect, message_service: MessageService, status: int) -> None:
        """Any answer shows that the service is there, and nothing is sent for it."""
        message_service.answer_with(Answer(status, body=b""))

        await channel_to(message_service.url + "/v1", api_key="s3cret").check()

        [received] = message_service.requests
        assert (received.method, received.path, received.body) == ("HEAD", "/v1", b"")
        assert "Authorization" not in received.headers

    async def test_refused(self, channel_to: Connect) -> None:
        """A service that is not there is named by its origin, without user, password or path."""
        port = closed_port()

        with pytest.raises(UnavailableError, match=f"^http://127.0.0.1:{port}: cannot connect: ") as raised:
            await channel_to(f"http://ada:s3cret@127.0.0.1:{port}/hooks/t0ken").check()

        assert raised.value.resource == "channel"

    @pytest.mark.parametrize("fault", [Fault.HANG, Fault.CLOSE])
    async def test_no_answer(self, channel_to: Connect, message_service: MessageService, fault: Fault) -> None:
        """A service that takes the connection and gives no answer cannot be used."""
        message_service.behaviour = lambda _received: Answer(fault=fault)

        with pytest.raises(UnavailableError):
            await channel_to(message_service.url, timeout=SOON).check()

    async def test_not_behind_sends(self, channel_to: Connect, message_service: MessageService) -> None:
        """A check does not wait for a connection that sends hold."""
        message_service.answer_with(Answer(fault=Fault.HANG))
        channel = channel_to(message_service.url, slots=1)
        sending = asyncio.create_task(channel.send(GREETING))
        await message_service.wait_for(1)

        async with asyncio.timeout(5):
            await channel.check()

        assert not sending.done()
        sending.cancel()


async def test_close(channel_to: Connect, message_service: MessageService) -> None:
    """Closing a channel closes its connections: those in use once their answer has come, and it may be done twice."""
    message_service.answer_with(Answer(), Answer(delay=SOON))
    channel = channel_to(message_service.url)
    await channel.send(GREETING)
    sending = asyncio.create_task(channel.send(GREETING))
    await message_service.wait_for(2)

    await channel.close()
    await channel.close()

    assert await sending == Delivered()
    await channel.send(GREETING)
    assert len({received.client_port for received in message_service.requests}) == 2
