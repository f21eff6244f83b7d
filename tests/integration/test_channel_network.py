"""The HTTP channel on the way to its service: TLS, proxies, names, connections."""

import asyncio
import socket
import sys
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import pytest

from birthday.channels import Channel, Delivered, Greeting, Outcome, Temporary
from birthday.config import load_settings
from birthday.core.message import ErrorType
from birthday.wiring.channel import open_channel
from tests.support.certificates import Certificates
from tests.support.clock import ManualClock
from tests.support.forward_proxy import ForwardProxy
from tests.support.message_service import MessageService

GREETING = Greeting(
    UUID("0198c0de-0000-7000-8000-00000000ada1"), "ada@example.com", "Hey, Ada Lovelace it's your birthday"
)
SLOTS = 10


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing about proxies and certificates."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    return monkeypatch


async def send_once(url: str) -> Outcome:
    """Send a greeting over a channel that is opened now."""
    async with channel_to(url) as channel:
        return await channel.send(GREETING)


def channel_to(url: str) -> AbstractAsyncContextManager[Channel]:
    """Open a channel to the service at ``url`` as the program does, with what the environment says."""
    return open_channel(load_settings(message_service_url=url, worker_concurrency=SLOTS), ManualClock(), sys.stdout)


class TestTls:
    """HTTPS: whom the channel trusts."""

    async def test_private_authority(self, environment: pytest.MonkeyPatch, certificates: Certificates) -> None:
        """A service whose certificate comes from the authority in SSL_CERT_FILE is trusted, by its name."""
        environment.setenv("SSL_CERT_FILE", str(certificates.authority))
        async with MessageService(host="localhost", tls=certificates.server) as service:
            assert await send_once(service.url) == Delivered()

            assert service.requests[0].json["email"] == "ada@example.com"

    @pytest.mark.usefixtures("environment")
    async def test_unknown_authority(self, certificates: Certificates) -> None:
        """A service whose certificate comes from nobody we know gets no greeting, and the reason says so."""
        async with MessageService(host="localhost", tls=certificates.server) as service:
            outcome = await send_once(service.url)

            assert isinstance(outcome, Temporary)
            assert outcome.reason == "cannot connect: certificate refused: unable to get local issuer certificate"
            assert not service.requests

    async def test_wrong_name(self, environment: pytest.MonkeyPatch, certificates: Certificates) -> None:
        """A certificate for another name is not enough, whoever has signed it."""
        environment.setenv("SSL_CERT_FILE", str(certificates.authority))
        async with MessageService(host="127.0.0.2", tls=certificates.server) as service:
            outcome = await send_once(service.url)

            assert isinstance(outcome, Temporary)
            assert outcome.reason.startswith("cannot connect: certificate refused: ")
            assert not service.requests


class TestProxy:
    """Proxies of the environment."""

    async def test_http(
        self, environment: pytest.MonkeyPatch, message_service: MessageService, forward_proxy: ForwardProxy
    ) -> None:
        """HTTP_PROXY is asked for a service without TLS."""
        environment.setenv("HTTP_PROXY", forward_proxy.url)

        assert await send_once(message_service.url) == Delivered()

        assert forward_proxy.asked == [f"POST {message_service.url}/send HTTP/1.1"]
        assert message_service.requests[0].path == "/send"

    async def test_https(
        self, environment: pytest.MonkeyPatch, certificates: Certificates, forward_proxy: ForwardProxy
    ) -> None:
        """HTTPS_PROXY opens a tunnel, and the certificate at its end is that of the service."""
        environment.setenv("HTTPS_PROXY", forward_proxy.url)
        environment.setenv("SSL_CERT_FILE", str(certificates.authority))
        async with (
            MessageService(host="localhost", tls=certificates.server) as service,
            channel_to(service.url) as channel,
        ):
            outcomes = [await channel.send(GREETING), await channel.send(GREETING)]

            assert outcomes == [Delivered(), Delivered()]
            assert forward_proxy.asked == [f"CONNECT {service.url.removeprefix('https://')} HTTP/1.1"]

    @pytest.mark.parametrize(
        ("host", "exception"),
        [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.0/8"),
            ("localhost", "example.com,localhost"),
            ("localhost", "*"),
        ],
    )
    async def test_no_proxy(
        self,
        environment: pytest.MonkeyPatch,
        message_service: MessageService,
        forward_proxy: ForwardProxy,
        host: str,
        exception: str,
    ) -> None:
        """NO_PROXY names hosts that are reached directly."""
        environment.setenv("HTTP_PROXY", forward_proxy.url)
        environment.setenv("NO_PROXY", exception)

        assert await send_once(message_service.url.replace("127.0.0.1", host)) == Delivered()

        assert not forward_proxy.asked

    async def test_away(self, environment: pytest.MonkeyPatch, message_service: MessageService) -> None:
        """A proxy that is not there is no way to the service: the greeting waits, and nothing goes past the proxy."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            environment.setenv("HTTP_PROXY", f"http://127.0.0.1:{free.getsockname()[1]}")

            outcome = await send_once(message_service.url)

        assert outcome == Temporary(ErrorType.EXTERNAL_API_ERROR, "cannot connect: Connection refused")
        assert not message_service.requests


@pytest.mark.usefixtures("environment")
class TestConnections:
    """How many there are, and where they lead."""

    async def test_reused(self, message_service: MessageService) -> None:
        """Greetings that are sent side by side share as many connections as there are slots."""
        async with channel_to(message_service.url) as channel:
            greetings = iter([GREETING] * 20 * SLOTS)

            async def send_some() -> list[Outcome]:
                return [await channel.send(greeting) for greeting in greetings]

            slots = await asyncio.gather(*(send_some() for _ in range(SLOTS)))

        assert [outcome for slot in slots for outcome in slot] == [Delivered()] * 20 * SLOTS
        assert len({received.client_port for received in message_service.requests}) <= SLOTS

    async def test_unknown_name(self) -> None:
        """A name that nobody knows is temporary: whoever takes care of names may be away."""
        outcome = await send_once("http://message-service.invalid")

        assert isinstance(outcome, Temporary)
        assert (outcome.error_type, outcome.outage) == (ErrorType.EXTERNAL_API_ERROR, True)
        assert outcome.reason.startswith("cannot connect: Name or service not known")
