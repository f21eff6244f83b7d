"""A private Prometheus with the shipped configuration and rules, only faster."""

import asyncio
import json
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml

from tests.support.monitoring import PROMETHEUS
from tests.support.product import eventually

START_SECONDS = 30

Rewrite = Callable[[str], str]


def as_shipped(rules: str) -> str:
    """Change nothing but how often rules are evaluated."""
    return re.sub(r"^    interval: .*$", "    interval: 1s", rules, flags=re.MULTILINE)


def impatient(rules: str) -> str:
    """Let alerts fire, and forget, within seconds."""
    return re.sub(r"for: \d+m", "for: 1s", as_shipped(rules)).replace("[1m]", "[3s]").replace("[2m]", "[3s]")


class Prometheus:
    """A running server; what it scrapes can be changed."""

    def __init__(self, url: str, targets: Path, session: aiohttp.ClientSession) -> None:
        """Take where it answers, with no slash at its end, and the file that it reads its targets from."""
        self.url = url
        self._targets = targets
        self._session = session

    def scrape(self, *processes: str) -> None:
        """Scrape these from now on, by the URLs of their APIs."""
        hosts = [urlsplit(process).netloc for process in processes]
        self._targets.write_text(json.dumps([{"targets": hosts, "labels": {"namespace": "test"}}]), encoding="utf-8")

    async def query(self, query: str) -> list[float]:
        """Return the values that a query has now, without those that are no number."""
        async with self._session.get(f"{self.url}/api/v1/query", params={"query": query}) as response:
            answer = await response.json()
        assert answer["status"] == "success", (query, answer)
        result = answer["data"]["result"]
        samples = [result] if answer["data"]["resultType"] == "scalar" else [one["value"] for one in result]
        values = [float(value) for _, value in samples]
        return [value for value in values if value == value]  # noqa: PLR0124 - NaN is not equal to itself

    async def unanswered(self, queries: Sequence[str]) -> list[str]:
        """Return the queries that have no data."""
        return [query for query in queries if not await self.query(query)]

    async def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        async with self._session.get(f"{self.url}/api/v1/alerts") as response:
            alerts: list[dict[str, Any]] = (await response.json())["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def wait_for_alert(self, name: str, *, firing: bool = True, seconds: float = 60) -> None:
        """Wait until an alert fires, or until it does not.

        Raises:
            AssertionError: if that takes longer.
        """

        async def reached() -> bool:
            return (name in await self.firing()) is firing

        await eventually(reached, f"{name} {'fires' if firing else 'is over'}", seconds)

    async def is_ready(self) -> bool:
        """Say whether it answers."""
        try:
            async with self._session.get(f"{self.url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def running_prometheus(directory: Path, rewrite: Rewrite = as_shipped) -> AsyncIterator[Prometheus]:
    """Run a server on a free port, with its data in ``directory``, until the context ends.

    Everything is scraped and evaluated once a second. ``rewrite`` changes the text of the rules.
    """
    targets = directory / "targets.json"
    targets.write_text("[]", encoding="utf-8")
    for file in (PROMETHEUS / "rules").glob("*.yml"):
        (directory / file.name).write_text(rewrite(file.read_text(encoding="utf-8")), encoding="utf-8")
    (directory / "prometheus.yml").write_text(_configuration(directory, targets), encoding="utf-8")
    address = f"127.0.0.1:{_free_port()}"
    with (directory / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as session:
            server = Prometheus(f"http://{address}", targets, session)
            await eventually(server.is_ready, "Prometheus answers", START_SECONDS)
            yield server
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def _configuration(directory: Path, targets: Path) -> str:
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    configuration["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(directory / file.name) for file in (PROMETHEUS / "rules").glob("*.yml")]
    del configuration["alerting"]
    [job] = configuration["scrape_configs"]
    job |= {"scrape_timeout": "1s", "file_sd_configs": [{"files": [str(targets)]}]}
    return str(yaml.safe_dump(configuration))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
