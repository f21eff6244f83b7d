"""The network between us and each server: cut, slow, reset, and silent, which is the worst."""

from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.chaos import Crowd, Receiver, fleet, pause
from tests.support.message_service import MessageService
from tests.support.proxy import Proxy

FAULTS = [*(pytest.param(fault, marks=pytest.mark.long) for fault in ("cut", "reset", "slow")), "silent"]


@pytest.fixture
async def rabbitmq_proxy(rabbitmq_url: str) -> AsyncIterator[Proxy]:
    """A network of its own between us and RabbitMQ."""
    server = urlsplit(rabbitmq_url)
    async with Proxy(server.hostname or "127.0.0.1", server.port or 5672) as proxy:
        yield proxy


async def disturb(proxy: Proxy, fault: str, seconds: float) -> None:
    """Let a fault last so long, then heal."""
    if fault == "cut":
        await proxy.cut()
    elif fault == "reset":
        proxy.reset()
    elif fault == "slow":
        proxy.delay = timedelta(milliseconds=200)
    else:
        proxy.silence()
    await pause(seconds)
    proxy.delay = timedelta()
    await proxy.heal()


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_way_to_rabbitmq(
    crowd: Crowd, database_url: str, rabbitmq_url: str, rabbitmq_proxy: Proxy, fault: str
) -> None:
    """Whatever it does for some seconds, afterwards everybody is greeted, once, and no process was restarted."""
    server = urlsplit(rabbitmq_url)
    url = server._replace(netloc=f"{server.username}:{server.password}@127.0.0.1:{rabbitmq_proxy.port}").geturl()
    receiver = Receiver(delay=timedelta(milliseconds=20))
    async with (
        MessageService(receiver) as service,
        fleet(database_url, f"{url}?heartbeat=3", service.url, WORKER_CONCURRENCY="10") as processes,
    ):
        await processes.start("scheduler,worker")
        await crowd.gather(400)
        await crowd.wait_for_delivered(50, 30)
        await disturb(rabbitmq_proxy, fault, 6)
        await processes.wait_for_ready(200, 60)
        await crowd.gather(100)
        await crowd.wait_until_settled(120)
        audit = await crowd.audit(receiver)
    audit.verify(repeats=10)


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_way_to_postgresql(crowd: Crowd, database_url: str, fault: str) -> None:
    """The same for the database; while it is gone, readiness says so."""
    async with Proxy(*_socket_of(database_url)) as proxy:
        url = f"postgresql://{urlsplit(database_url).username}@127.0.0.1:{proxy.port}{urlsplit(database_url).path}"
        receiver = Receiver(delay=timedelta(milliseconds=20))
        async with (
            MessageService(receiver) as service,
            fleet(url, None, service.url, WORKER_CONCURRENCY="10") as processes,
        ):
            await processes.start("scheduler,worker")
            await crowd.gather(400)
            await crowd.wait_for_delivered(50, 30)
            await disturb(proxy, fault, 6)
            await processes.wait_for_ready(200, 120)
            await crowd.gather(100)
            await crowd.wait_until_settled(180)
            audit = await crowd.audit(receiver)
        audit.verify(repeats=10)


def _socket_of(database_url: str) -> tuple[str, int]:
    """Return the directory of the server's socket, and its port."""
    directory, _, port = urlsplit(database_url).netloc.rpartition("@")[2].rpartition(":")
    return unquote(directory), int(port)
