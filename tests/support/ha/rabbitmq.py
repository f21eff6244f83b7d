"""A RabbitMQ cluster of three nodes, each on a host of its own."""

import secrets
from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import aiohttp

from birthday.broker.rabbitmq import RabbitMQBroker
from tests.support.chaos import until
from tests.support.ha.hosts import Host, Network

AMQP, MANAGEMENT = 5672, 15672
START_SECONDS = 120
COOKIE = "lab"
QUEUE = "birthday_messages"


class RabbitMQCluster:
    """The nodes. A quorum queue has a member on each of them."""

    def __init__(self, network: Network) -> None:
        """Make the hosts; nothing runs yet."""
        self.hosts = [network.host(f"mq{number}", 30 + number) for number in (1, 2, 3)]

    async def start(self) -> None:
        """Start all nodes, which find each other, and return once the cluster is whole."""
        for host in self.hosts:
            self._configure(host)
            self.start_node(host)
        await self.wait_until_whole()

    def start_node(self, host: Host) -> None:
        """Start a node, for the first time or after it was killed."""
        directory = host.directory
        environment = {
            "RABBITMQ_NODENAME": _node(host),
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{directory}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{directory}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{directory}/data",
            "RABBITMQ_LOG_BASE": f"{directory}/log.d",
            "RABBITMQ_PID_FILE": f"{directory}/pid",
            # Three nodes on one machine: one thread each, which does not spin while it waits.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        host.start(["/usr/lib/rabbitmq/bin/rabbitmq-server"], environment)

    def kill(self, host: Host) -> None:
        """End a node the hard way, as a crash does."""
        host.kill("beam")

    async def wait_until_whole(self) -> None:
        """Wait until each node sees all others run."""

        async def is_whole() -> bool:
            seen = [await self.manage(host, "GET", "nodes") for host in self.hosts]
            return all(
                sum(node["running"] for node in nodes) == len(self.hosts)
                and not any(node.get("partitions") for node in nodes)
                for nodes in seen
            )

        await until(is_whole, "all nodes of RabbitMQ see each other", START_SECONDS)

    async def create_vhost(self, leader: Host) -> str:
        """Create a virtual host with the product's queues, whose leaders are on this node, and return its name."""
        vhost = f"test-{secrets.token_hex(6)}"

        async def exists() -> bool:
            # A node that has just started may hang in this; the next try succeeds.
            await self.manage(leader, "PUT", f"vhosts/{vhost}")
            return True

        await until(exists, "there is a virtual host", START_SECONDS)
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        await self.manage(leader, "PUT", f"permissions/{vhost}/guest", rights)
        broker = RabbitMQBroker(self.url(vhost, [leader]))
        async with broker.consume(prefetch=1):
            assert await self.leader(vhost, [leader]) == leader
        await broker.close()
        return vhost

    async def leader(self, vhost: str, asked: Sequence[Host]) -> Host | None:
        """Return the host that leads the queue of messages, as those that are asked say; None if they do not agree."""
        said = [(await self.manage(host, "GET", f"queues/{quote(vhost)}/{QUEUE}")).get("leader") for host in asked]
        return next((host for host in self.hosts if set(said) == {_node(host)}), None)

    def url(self, vhost: str, hosts: Sequence[Host]) -> str:
        """Return the URL of a virtual host by these nodes."""
        return f"amqp://guest:guest@{','.join(f'{host.address}:{AMQP}' for host in hosts)}/{vhost}"

    async def manage(self, host: Host, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Call the management API of a node and return the decoded answer, None when it is empty."""
        headers = {"Authorization": f"Basic {b64encode(b'guest:guest').decode()}"}
        async with (
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(10), raise_for_status=True) as session,
            session.request(method, f"http://{host.address}:{MANAGEMENT}/api/{path}", json=body) as response,
        ):
            return await response.json() if response.content_type == "application/json" else None

    def _configure(self, host: Host) -> None:
        nodes = "\n".join(
            f"cluster_formation.classic_config.nodes.{number} = {_node(other)}"
            for number, other in enumerate(self.hosts, 1)
        )
        (host.directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (host.directory / "rabbitmq.conf").write_text(
            f"""
listeners.tcp.1 = {host.address}:{AMQP}
management.tcp.port = {MANAGEMENT}
loopback_users = none
collect_statistics_interval = 2000
log.file.level = warning
cluster_partition_handling = pause_minority
cluster_formation.peer_discovery_backend = classic_config
{nodes}
"""
        )
        cookie = host.directory / ".erlang.cookie"
        cookie.write_text(COOKIE)
        cookie.chmod(0o400)


def _node(host: Host) -> str:
    return f"rabbit@{host.address}"
