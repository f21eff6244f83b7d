"""An installation on hosts of its own, highly available servers behind it, and a message service apart from all that.

What an experiment does: ``installed`` begins a steady flow; a fault is done to a host; ``recover`` waits and measures;
at the end of the context everybody must have been greeted once.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from urllib.parse import urlsplit

from tests.support.api import api_keys
from tests.support.ha.hosts import Host, Network
from tests.support.ha.load import Deliveries, Flow, Readiness
from tests.support.ha.postgres import PostgresCluster
from tests.support.ha.rabbitmq import RabbitMQCluster
from tests.support.message_service import MessageService
from tests.support.product import eventually
from tests.support.program import Program, run, running
from tests.support.tasks import background

ROLES = ("api", "scheduler", "worker")
SETTLE_SECONDS = 60
Record = Callable[[str, object], None]
MEASURED = "measured"
"""The property of a test under which it records what its fault cost."""


class Lab:
    """All hosts. ``operator`` is where the tests, the message service and the commands are."""

    def __init__(self, network: Network) -> None:
        """Make the hosts; nothing runs on them yet."""
        self.network = network
        self.operator = network.host("operator", 2)
        self.postgres = PostgresCluster(network, network.host("etcd", 10), network.host("proxy", 20))
        self.rabbitmq = RabbitMQCluster(network)
        self.roles = {
            f"{role}{copy}": network.host(f"{role}{copy}", 40 + 10 * number + copy)
            for number, role in enumerate(ROLES)
            for copy in (1, 2)
        }

    async def start(self) -> None:
        """Start all servers."""
        await asyncio.gather(self.postgres.start(), self.rabbitmq.start())

    async def restore(self) -> None:
        """End all faults, and wait until nothing is missing."""
        self.network.heal()
        await asyncio.gather(self.postgres.wait_until_whole(), self.rabbitmq.wait_until_whole())

    async def queue(self, leader: Host, nodes: Sequence[Host]) -> str:
        """Return the URL of new queues by these nodes; ``leader`` leads them at first."""
        await self.restore()
        return self.rabbitmq.url(await self.rabbitmq.create_vhost(leader), nodes)

    @asynccontextmanager
    async def installed(
        self, way: str = "hosts", queue_url: str | None = None, copies: int = 1
    ) -> AsyncIterator["Installation"]:
        """Yield an installation in a new database with a steady flow, and audit it at the end.

        ``way`` is how it comes to the primary, as in ``PostgresCluster.url``. ``copies`` is how many run in each role.
        """
        await self.restore()
        database = await self.postgres.create_database()
        deliveries = Deliveries()
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(MessageService(deliveries, host=self.operator.address))
            settings = await self.prepare(database, service, way, queue_url)
            names = [name for name in self.roles if int(name[-1]) <= copies]
            programs = await asyncio.gather(
                *(stack.enter_async_context(self.running(name, settings)) for name in names)
            )
            roles = dict(zip(names, programs, strict=True))
            installation = Installation(roles, deliveries)
            async with background(installation.readiness.run()), asyncio.TaskGroup() as clients:
                clients.create_task(installation.flow.run())
                try:
                    await installation.flow.wait_until_served(monotonic(), SETTLE_SECONDS)
                    await installation.readiness.wait_until_ready(SETTLE_SECONDS)
                    yield installation
                except Exception as error:
                    error.add_note(installation.told())
                    raise
                finally:
                    installation.flow.stop()
            await installation.wait_for_everybody()
            await verify(settings, len(installation.flow.created))

    async def prepare(
        self, database: str, service: MessageService, way: str = "hosts", queue_url: str | None = None
    ) -> dict[str, str]:
        """Migrate a database, and return the settings of an installation in it."""
        settings = {
            "DATABASE_URL": self.postgres.url(database, way),
            "MESSAGE_SERVICE_URL": service.url,
            "MESSAGE_SERVICE_TIMEOUT": "3s",
            "SEND_AT": "00:00",
            "SHUTDOWN_TIMEOUT": "10s",
            "API_KEYS": api_keys(lab="write"),
        }
        if queue_url is not None:
            settings["RABBITMQ_URL"] = queue_url
        migrated = await run("migrate", **settings)
        assert migrated.status == 0, migrated
        return settings

    def running(self, name: str, settings: dict[str, str]) -> AbstractAsyncContextManager[Program]:
        """Run a role on its host: ``worker2`` is the second worker."""
        host = self.roles[name]
        return running("--role", name[:-1], within=host.command, HOST=host.address, **settings)


@dataclass(frozen=True)
class Recovery:
    """What a fault cost, in seconds. ``not_ready`` has the first and the last refusal of each process, since it."""

    api_gap: float
    delivery_gap: float
    not_ready: dict[str, tuple[float, float]]

    @property
    def ready_by(self) -> float:
        """When the last process that was not ready said so for the last time."""
        return max((last for _, last in self.not_ready.values()), default=0.0)

    def __str__(self) -> str:
        """Say it in one line."""
        refused = "".join(
            f", {name} not ready from {first:.1f} to {last:.1f} s" for name, (first, last) in self.not_ready.items()
        )
        return f"API {self.api_gap:.1f} s, deliveries {self.delivery_gap:.1f} s{refused}"


class Installation:
    """The processes of the product, one of each role, and what its users see of it."""

    def __init__(self, programs: dict[str, Program], deliveries: Deliveries) -> None:
        """Take the running processes by their hosts."""
        self.programs = programs
        self.flow = Flow([program.url for name, program in programs.items() if name.startswith("api")], deliveries)
        self.readiness = Readiness({role: program.url for role, program in programs.items()})

    async def recover(self, since: float, seconds: float = 60) -> Recovery:
        """Wait until users are created and greeted again, and say what the fault cost that began at ``since``."""
        await self.flow.wait_until_served(monotonic(), seconds)
        await self.readiness.wait_until_ready(seconds)
        refusals = self.readiness.red(since)
        return Recovery(
            api_gap=self.flow.api_gap(since),
            delivery_gap=self.flow.delivery_gap(since),
            not_ready={name: (first - since, last - since) for name, (first, last) in refusals.items()},
        )

    def node_of(self, name: str) -> str:
        """Return the address of the node of RabbitMQ that a process was connected to last."""
        program = self.programs[name]
        where = [event["where"] for event in program.events if event["event"] == "broker.connected"][-1]
        return str(urlsplit(where.rpartition(" ")[2]).hostname)

    def told(self) -> str:
        """Return what the processes have logged and the API has refused, in order to explain a failure."""
        events = [(role, event) for role, program in self.programs.items() for event in program.events]
        lines = [f"{role}: {event}" for role, event in events if event.get("level") != "info"]
        return "\n".join([*lines, *self.flow.refusals[-10:]])

    async def kill(self, name: str) -> None:
        """End a process the hard way. It is asked for nothing any more."""
        program = self.programs.pop(name)
        self.readiness.forget(name)
        await program.stop(signal.SIGKILL)

    async def wait_for_everybody(self) -> None:
        """Wait until all who were created have been greeted, and make sure that nobody was under two keys."""
        flow, accepted = self.flow, self.flow.deliveries.accepted

        async def are_greeted() -> bool:
            return flow.created.keys() <= accepted.keys()

        await eventually(are_greeted, "everybody who was created is greeted", SETTLE_SECONDS)
        assert accepted.keys() == flow.created.keys()
        assert {email: keys for email, keys in accepted.items() if len(set(keys)) > 1} == {}
        assert {program.process.returncode for program in self.programs.values()} == {None}


async def verify(settings: dict[str, str], users: int) -> None:
    """Make sure that the product's own audit knows so many users with a birthday, and that all were greeted once."""
    today = datetime.now(UTC).date()
    days = ("--from", f"{today - timedelta(days=1)}", "--to", f"{today}")
    async with asyncio.timeout(SETTLE_SECONDS):
        # The last outcome is stored a moment after the last message was accepted.
        while (counts := await _audit(settings, *days))["pending"]:
            await asyncio.sleep(0.05)
    assert counts["delivered"] == counts["expected"] == users, counts
    assert not any(counts[finding] for finding in ("missing", "duplicate", "mistimed", "failed", "expired")), counts


async def _audit(settings: dict[str, str], *days: str) -> dict[str, int]:
    audit = await run("audit", *days, "--json", "--fail-on", "failed,expired", **settings)
    assert audit.status == 0, audit
    counts: dict[str, int] = json.loads(audit.out)
    return counts
