"""An installation on hosts of its own, highly available servers behind it, and a message service apart from all that.

What an experiment does: ``installed`` begins a steady flow; a fault is done to a host; ``recover`` waits and measures;
at the end of the context everybody must have been greeted once.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic

from tests.support.api import api_keys
from tests.support.ha.hosts import Network
from tests.support.ha.load import Deliveries, Flow, Readiness
from tests.support.ha.postgres import PostgresCluster
from tests.support.message_service import MessageService
from tests.support.program import Program, run, running
from tests.support.tasks import background

ROLES = ("api", "scheduler", "worker")
SETTLE_SECONDS = 60
MEASURED = "measured"
"""The property of a test under which it records what its fault cost."""


class Lab:
    """All hosts. ``operator`` is where the tests, the message service and the commands are."""

    def __init__(self, network: Network) -> None:
        """Make the hosts; nothing runs on them yet."""
        self.network = network
        self.operator = network.host("operator", 2)
        self.postgres = PostgresCluster(network, network.host("etcd", 10), network.host("proxy", 20))
        self.roles = {role: network.host(role, 40 + number) for number, role in enumerate(ROLES)}

    async def start(self) -> None:
        """Start all servers."""
        await self.postgres.start()

    async def restore(self) -> None:
        """End all faults, and wait until nothing is missing."""
        self.network.heal()
        await self.postgres.wait_until_whole()

    @asynccontextmanager
    async def installed(self, way: str = "hosts") -> AsyncIterator["Installation"]:
        """Yield an installation in a new database with a steady flow, and audit it at the end.

        ``way`` is how it comes to the primary, as in ``PostgresCluster.url``.
        """
        database = await self.postgres.create_database()
        deliveries = Deliveries()
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(MessageService(deliveries, host=self.operator.address))
            settings = {
                "DATABASE_URL": self.postgres.url(database, way),
                "MESSAGE_SERVICE_URL": service.url,
                "MESSAGE_SERVICE_TIMEOUT": "3s",
                "SEND_AT": "00:00",
                "SHUTDOWN_TIMEOUT": "10s",
                "API_KEYS": api_keys(lab="write"),
            }
            migrated = await run("migrate", **settings)
            assert migrated.status == 0, migrated
            programs = await asyncio.gather(
                *(
                    stack.enter_async_context(
                        running("--role", role, within=host.command, HOST=host.address, **settings)
                    )
                    for role, host in self.roles.items()
                )
            )
            roles = dict(zip(self.roles, programs, strict=True))
            installation = Installation(settings, roles, deliveries)
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
            await installation.verify()


@dataclass(frozen=True)
class Recovery:
    """What a fault cost, in seconds. ``not_ready`` has the first and the last refusal of each process, since it."""

    api_gap: float
    delivery_gap: float
    served_after: float
    not_ready: dict[str, tuple[float, float]]

    def __str__(self) -> str:
        """Say it in one line."""
        refused = "".join(
            f", {name} not ready from {first:.1f} to {last:.1f} s" for name, (first, last) in self.not_ready.items()
        )
        return f"API {self.api_gap:.1f} s, deliveries {self.delivery_gap:.1f} s{refused}"


class Installation:
    """The processes of the product, one of each role, and what its users see of it."""

    def __init__(self, settings: dict[str, str], programs: dict[str, Program], deliveries: Deliveries) -> None:
        """Take the running processes by their roles."""
        self.settings = settings
        self.programs = programs
        self.flow = Flow([programs["api"].url], deliveries)
        self.readiness = Readiness({role: program.url for role, program in programs.items()})

    async def recover(self, since: float, seconds: float, after: float | None = None) -> Recovery:
        """Wait until users are created and greeted again, and say what it took since the fault began, at ``since``.

        ``after`` is when something had to have happened first, such as the election of a new primary.
        """
        await self.flow.wait_until_served(after or since, seconds)
        await self.readiness.wait_until_ready(seconds)
        refusals = self.readiness.red(since)
        return Recovery(
            api_gap=self.flow.api_gap(since),
            delivery_gap=self.flow.delivery_gap(since),
            served_after=monotonic() - since,
            not_ready={name: (first - since, last - since) for name, (first, last) in refusals.items()},
        )

    def told(self) -> str:
        """Return what the processes have logged and the API has refused, in order to explain a failure."""
        lines = [f"{role}: {event}" for role, program in self.programs.items() for event in program.events[-40:]]
        return "\n".join([*lines, *self.flow.refusals[-10:]])

    async def verify(self) -> None:
        """Make sure that all who were created have been greeted, nobody under two keys, and that the audit agrees."""
        flow, accepted = self.flow, self.flow.deliveries.accepted
        async with asyncio.timeout(SETTLE_SECONDS):
            while flow.created.keys() - accepted.keys():
                await asyncio.sleep(0.05)
        twice = {email: keys for email, keys in accepted.items() if len(set(keys)) > 1}
        assert not twice
        assert accepted.keys() == flow.created.keys()
        today = datetime.now(UTC).date()
        days = ("--from", f"{today - timedelta(days=1)}", "--to", f"{today}")
        async with asyncio.timeout(SETTLE_SECONDS):
            # The last outcome is stored a moment after the last message was accepted.
            while (audit := await self._audit(*days))["pending"]:
                await asyncio.sleep(0.05)
        assert audit["delivered"] == audit["expected"] == len(flow.created), audit
        assert not any(audit[finding] for finding in ("missing", "duplicate", "mistimed", "failed", "expired")), audit
        assert [program.process.returncode for program in self.programs.values()] == [None] * len(self.programs)

    async def _audit(self, *days: str) -> dict[str, int]:
        audit = await run("audit", *days, "--json", "--fail-on", "failed,expired", **self.settings)
        assert audit.status == 0, audit
        counts: dict[str, int] = json.loads(audit.out)
        return counts
