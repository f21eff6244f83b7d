"""The HTTP API on a free port of the loopback interface, with the clock of a test, and a client to it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import orjson

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.config import Settings, load_settings
from birthday.http.app import build
from birthday.http.context import ApiContext
from birthday.http.limits import Limits
from birthday.http.server import serve
from birthday.operations.keys import Keys
from birthday.operations.pauses import Pauses
from birthday.operations.readiness import DATABASE, QUEUE, Check, Readiness
from birthday.operations.templates.compiling import Compiler
from birthday.store.connection import check_database
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock

RUNBOOK_USER: dict[str, Any] = {
    "firstName": "Test",
    "lastName": "User",
    "email": "test@example.com",
    "dateOfBirth": "1990-01-01T00:00:00Z",
    "timezoneOffset": 0,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any

    @property
    def pointers(self) -> list[str]:
        """The fields and parameters that a problem document complains of."""
        return [error["pointer"] if "pointer" in error else error["parameter"] for error in self.json.get("errors", [])]


@dataclass(frozen=True, slots=True)
class Api:
    """A running API and what it works with."""

    url: str
    client: aiohttp.ClientSession
    context: ApiContext
    clock: ManualClock

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, with a body if ``json`` or ``data`` is given, and return the answer."""
        async with self.client.request(method, self.url + path, json=json, data=data, headers=headers) as response:
            body = await response.read()
            parsed = orjson.loads(body) if body and response.content_type.endswith(("/json", "+json")) else None
            return Answer(response.status, response.headers, body, parsed)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET."""
        return await self.request("GET", path, headers=headers)

    async def post(self, path: str, json: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """POST."""
        return await self.request("POST", path, json=json, headers=headers)

    async def put(self, path: str, json: object, headers: Mapping[str, str] | None = None) -> Answer:
        """PUT."""
        return await self.request("PUT", path, json=json, headers=headers)

    async def patch(self, path: str, json: object, headers: Mapping[str, str] | None = None) -> Answer:
        """PATCH."""
        return await self.request("PATCH", path, json=json, headers=headers)

    async def delete(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """DELETE."""
        return await self.request("DELETE", path, headers=headers)

    async def create(self, **changes: object) -> dict[str, Any]:
        """Create the runbook's user, with ``changes``, and return it; None leaves a member out."""
        members = {name: value for name, value in (RUNBOOK_USER | changes).items() if value is not None}
        answer = await self.post("/users", json=members)
        assert answer.status == 201, answer.body
        user: dict[str, Any] = answer.json
        return user

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of one sample, 0 if it has not been touched."""
        value = self.context.metrics.registry.get_sample_value(f"birthday_scheduler_{name}", labels)
        return value or 0.0


@asynccontextmanager
async def running_api(
    pool: asyncpg.Pool,
    *,
    broker: Broker | None = None,
    checks: dict[str, Check] | None = None,
    channel: Check | None = None,
    clock: ManualClock | None = None,
    limits: Limits | None = None,
    **settings: object,
) -> AsyncIterator[Api]:
    """Run the API for the length of the context, with settings that differ from the defaults as given.

    It leaves at once: a test has no client that is about to connect.
    """
    clock = clock or ManualClock()
    used_broker = broker or PostgresBroker(pool)
    used_checks = {DATABASE: lambda: check_database(pool), QUEUE: used_broker.check} if checks is None else checks
    readiness = Readiness(used_checks, channel)
    metrics = Metrics()
    pauses = Pauses(pool, clock, metrics)
    keys = Keys(pool, clock, metrics, _settings(**settings).api_keys)
    letters = RecordingChannel(clock)
    compiler = Compiler()
    context = ApiContext(
        pool, used_broker, clock, metrics, _settings(**settings), readiness, pauses, letters, compiler, keys
    )
    async with (
        compiler,
        serve(build(context), "127.0.0.1", 0, limits=limits, linger=timedelta()) as (host, port),
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as client,
    ):
        yield Api(f"http://{host}:{port}", client, context, clock)


@cache
def _settings(**settings: object) -> Settings:
    """Return the settings of one API; loading them takes longer than to start it."""
    return load_settings(**settings)


def api_keys(**scopes: str) -> str:
    """Return the setting API_KEYS for these names and scopes; the key of ``ada`` is ``key-of-ada``."""
    return ",".join(
        f"{name}:{hashlib.sha256(f'key-of-{name}'.encode()).hexdigest()}:{scope}" for name, scope in scopes.items()
    )


async def message_rows(pool: asyncpg.Pool, user_id: str) -> list[tuple[str, datetime]]:
    """Return status and instant of every message of a user, in order of creation."""
    rows = await pool.fetch(
        "SELECT status, scheduled_at FROM message_logs WHERE user_id = $1 ORDER BY created_at, id", UUID(user_id)
    )
    return [(row["status"], row["scheduled_at"]) for row in rows]


def instant(text: str) -> datetime:
    """Return the instant that a JSON member names."""
    assert text.endswith("Z"), text
    return datetime.fromisoformat(text).astimezone(UTC)


async def hang() -> None:
    """Never return, as a dependency that has stopped answering."""
    await asyncio.Event().wait()
