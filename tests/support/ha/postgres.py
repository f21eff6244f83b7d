"""Three PostgreSQL under Patroni, with etcd beside them, and HAProxy and pgbouncer in front."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import yaml

from birthday.embedded.programs import Programs, choose_programs
from tests.support.chaos import until
from tests.support.ha.hosts import Host, Network
from tests.support.postgres import postgres_programs

ETCD, POSTGRES, PATRONI, HAPROXY, PGBOUNCER = 2379, 5432, 8008, 5000, 6432
START_SECONDS = 40
SUPERUSER = "postgres"
TTL_SECONDS = 10
"""How long a primary may not renew its lease before another one takes over."""
DURABLE_NOT = {"fsync": "off", "full_page_writes": "off"}
"""The lab's servers outlive no crash of the machine."""


class PostgresCluster:
    """The servers, the first of which to start is the primary at first.

    Commits wait for a standby, unless ``wait_for_standby`` says otherwise.
    """

    def __init__(self, network: Network, etcd: Host, proxy: Host) -> None:
        """Take the hosts of etcd and of HAProxy, and make three more; nothing runs yet."""
        self.etcd = etcd
        self.proxy = proxy
        self.hosts = [network.host(f"pg{number}", 10 + number) for number in (1, 2, 3)]

    async def start(self) -> None:
        """Start everything and return once both standbys stream."""
        self.etcd.start(
            [
                *("etcd", "--data-dir", f"{self.etcd.directory}/data", "--log-level", "error"),
                *("--listen-client-urls", f"http://{self.etcd.address}:{ETCD}"),
                *("--advertise-client-urls", f"http://{self.etcd.address}:{ETCD}"),
            ]
        )
        programs = await choose_programs(postgres_programs(), self.hosts[0].directory, None)
        for host in self.hosts:
            self._configure(host, programs)
            self.start_patroni(host, programs)
        self._start_haproxy()
        self._start_pgbouncer()
        await self.wait_until_whole()

    def start_patroni(self, host: Host, programs: Programs) -> None:
        """Start Patroni, which starts PostgreSQL."""
        self._programs = programs
        environment = {"PATRONI_LOG_LEVEL": "INFO"}
        host.start([*programs.prefix, "patroni", f"{host.directory}/patroni.yaml"], environment)

    def start_again(self, host: Host) -> None:
        """Start Patroni on a host on which it was killed."""
        self.start_patroni(host, self._programs)

    async def wait_until_whole(self) -> None:
        """Wait until there is a primary, and all others stream from it."""

        async def is_whole() -> bool:
            members = (await self._ask(self.hosts[0], "cluster"))["members"]
            roles = sorted(member["role"] for member in members if member["state"] in {"running", "streaming"})
            lags = [member.get("lag", 0) for member in members]
            standby = "sync_standby" if await self._waits_for_standby() else "replica"
            return roles == sorted(["leader", "replica", standby]) and set(lags) == {0}

        await until(is_whole, "all members of the cluster run", START_SECONDS)

    async def primary(self) -> Host | None:
        """Return the host that can be written to, as Patroni says."""
        answers = await asyncio.gather(*(self._is_primary(host) for host in self.hosts))
        return next((host for host, answer in zip(self.hosts, answers, strict=True) if answer), None)

    async def wait_for_primary(self, other_than: Host, seconds: float = 60) -> float:
        """Return, as soon as another host than this is the primary, the time of the monotonic clock."""
        async with asyncio.timeout(seconds):
            while (await self.primary()) in {None, other_than}:
                await asyncio.sleep(0.05)
        return time.monotonic()

    async def switch_over(self) -> float:
        """Have Patroni make another server the primary, and return when it is one, by the monotonic clock."""
        leader = await self.primary()
        assert leader is not None
        body = {"leader": leader.name}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
            session.post(f"http://{leader.address}:{PATRONI}/switchover", json=body) as response,
        ):
            assert response.status == 200, await response.text()
        return await self.wait_for_primary(leader)

    async def synchronous_standby(self) -> Host:
        """Return the host for which commits wait."""
        members = (await self._ask(self.hosts[0], "cluster"))["members"]
        [name] = [member["name"] for member in members if member["role"] == "sync_standby"]
        return next(host for host in self.hosts if host.name == name)

    async def wait_for_standbys(self) -> None:
        """Wait until both standbys have all that the primary has written."""
        async with self.connected("postgres") as connection:

            async def have_all() -> bool:
                streamed: int = await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
                )
                return streamed == len(self.hosts) - 1

            await until(have_all, "the standbys have everything", START_SECONDS)

    async def configure(self, **settings: object) -> None:
        """Change settings of the whole cluster, such as ``synchronous_mode``."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session,
            session.patch(f"http://{self.hosts[0].address}:{PATRONI}/config", json=settings) as response,
        ):
            assert response.status == 200, await response.text()

    def url(self, database: str, way: str = "hosts") -> str:
        """Return the URL of a database by all three hosts, by ``haproxy`` or by ``pgbouncer``."""
        places = {
            "hosts": ",".join(f"{host.address}:{POSTGRES}" for host in self.hosts),
            "haproxy": f"{self.proxy.address}:{HAPROXY}",
            "pgbouncer": f"{self.proxy.address}:{PGBOUNCER}",
        }
        return f"postgresql://{SUPERUSER}@{places[way]}/{database}"

    async def create_database(self) -> str:
        """Create an empty database on the primary and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        async with self.connected("postgres") as connection:
            await connection.execute(f'CREATE DATABASE "{name}"')
        return name

    @asynccontextmanager
    async def connected(self, database: str) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection to the primary."""
        primary = await self.primary()
        assert primary is not None
        connection = await asyncpg.connect(host=primary.address, port=POSTGRES, user=SUPERUSER, database=database)
        try:
            yield connection
        finally:
            await connection.close()

    def _configure(self, host: Host, programs: Programs) -> None:
        data = host.directory / "data"
        trusted = [f"host {database} all 10.77.0.0/24 trust" for database in ("all", "replication")]
        settings = {
            "scope": "birthday",
            "name": host.name,
            "etcd3": {"host": f"{self.etcd.address}:{ETCD}"},
            "restapi": {"listen": f"{host.address}:{PATRONI}", "connect_address": f"{host.address}:{PATRONI}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_SECONDS,
                    "loop_wait": 1,
                    "retry_timeout": 4,
                    "maximum_lag_on_failover": 2**30,
                    # A server that was killed is not started again in its place: another one takes over.
                    "primary_start_timeout": 0,
                    "synchronous_mode": True,
                    "postgresql": {"parameters": {"max_connections": 100} | DURABLE_NOT},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, {"auth": "trust"}, "data-checksums", "no-sync"],
            },
            "postgresql": {
                "listen": f"{host.address}:{POSTGRES}",
                "connect_address": f"{host.address}:{POSTGRES}",
                "bin_dir": str(programs.directory),
                "data_dir": str(data),
                # What the new primary never got is copied over, not rewound.
                "remove_data_directory_on_diverged_timelines": True,
                "pgpass": f"{host.directory}/pgpass",
                "authentication": {"superuser": {"username": SUPERUSER}, "replication": {"username": SUPERUSER}},
                "parameters": {
                    "unix_socket_directories": str(host.directory),
                    "shared_buffers": "32MB",
                    # In files of the data directory, which a killed server cannot leave behind.
                    "dynamic_shared_memory_type": "mmap",
                },
                "pg_hba": ["local all all trust", *trusted],
            },
        }
        (host.directory / "patroni.yaml").write_text(yaml.safe_dump(settings))

    def _start_haproxy(self) -> None:
        servers = "\n".join(
            f"    server {host.name} {host.address}:{POSTGRES} check port {PATRONI}" for host in self.hosts
        )
        (self.proxy.directory / "haproxy.cfg").write_text(
            f"""
defaults
    mode tcp
    timeout connect 2s
    timeout client 30m
    timeout server 30m
    timeout check 1s
    retries 1
listen primary
    bind {self.proxy.address}:{HAPROXY}
    option httpchk GET /primary
    http-check expect status 200
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""
        )
        self.proxy.start(["haproxy", "-db", "-f", f"{self.proxy.directory}/haproxy.cfg"])

    def _start_pgbouncer(self) -> None:
        place = self.proxy.directory
        (place / "users.txt").write_text(f'"{SUPERUSER}" ""\n')
        (place / "pgbouncer.ini").write_text(
            f"""
[databases]
* = host={self.proxy.address} port={HAPROXY} user={SUPERUSER}
[pgbouncer]
listen_addr = {self.proxy.address}
listen_port = {PGBOUNCER}
unix_socket_dir =
auth_type = trust
auth_file = {place}/users.txt
pool_mode = session
default_pool_size = 60
max_client_conn = 200
server_reset_query = DISCARD ALL
server_login_retry = 1
"""
        )
        self.proxy.start(["pgbouncer", "-u", "nobody", f"{place}/pgbouncer.ini"])

    async def _waits_for_standby(self) -> bool:
        return bool((await self._ask(self.hosts[0], "config")).get("synchronous_mode"))

    async def _is_primary(self, host: Host) -> bool:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(0.5)) as session,
                session.get(f"http://{host.address}:{PATRONI}/primary") as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _ask(self, host: Host, what: str) -> Any:  # noqa: ANN401 - JSON
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as session,
            session.get(f"http://{host.address}:{PATRONI}/{what}") as response,
        ):
            return await response.json()
