"""The objects that request handlers use. The composition root creates them."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg
from aiohttp import web

from birthday.broker import Broker
from birthday.channels import Channel
from birthday.clock import CheckedClock
from birthday.config import Settings
from birthday.http.coalescer import Coalescer
from birthday.http.doubts import Doubts
from birthday.http.hiding import hiding
from birthday.http.turns import Turns
from birthday.operations.calendar import Calendar
from birthday.operations.keys import Keys
from birthday.operations.notices import Notices
from birthday.operations.pauses import Pauses
from birthday.operations.readiness import Readiness
from birthday.operations.templates.compiling import Compiler
from birthday.store.changes import Actor
from birthday.store.creation import NewUser
from birthday.store.users import Planning, User
from birthday.telemetry.exposition import Page
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.score import HealthScore
from birthday.telemetry.tracing import NO_TRACING, Tracing

IMPORTS: Final = 2
"""How many imports may run at a time in one process."""


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Everything that answering a request needs."""

    pool: asyncpg.Pool
    broker: Broker
    clock: CheckedClock
    metrics: Metrics
    settings: Settings
    readiness: Readiness
    pauses: Pauses
    channel: Channel
    compiler: Compiler
    keys: Keys
    past_pooler: Callable[[], AbstractAsyncContextManager[asyncpg.Pool | None]] = nullcontext
    """Opens a pool whose connections are sessions; it yields None if DATABASE_DIRECT_URL is not set."""
    tracing: Tracing = NO_TRACING
    score: HealthScore = field(default_factory=HealthScore)
    notices: Notices = field(default_factory=Notices)
    requeueing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held during a requeue, because that keeps a connection of the pool while the queue may need another one."""
    importing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IMPORTS))
    """Limits imports, because each holds a connection of the pool as long as its client takes."""
    sweeping: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while dead letters are removed: of two removals at the same time, each may see only part of them."""
    auditing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held during an audit for a page, because that keeps the database busy."""
    doubts: Doubts = field(default_factory=Doubts)
    """Users who may have been created."""
    repeats: Turns = field(init=False)
    """Whose turn it is of requests with an Idempotency-Key."""
    calendar: Calendar = field(init=False)
    """Counts the coming year for the console."""
    planning: Planning = field(init=False)
    """What planning depends on besides the user."""
    hide_names: Callable[[str | None], str | None] = field(init=False)
    """Masks hosts, users and paths in a reason, for clients without a key."""
    page: Page = field(init=False)
    """The page of metrics."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "repeats", Turns(self.settings.database_pool_max // 4))
        object.__setattr__(self, "planning", Planning(self.settings.rules, self.settings.plan_horizon))
        object.__setattr__(self, "calendar", Calendar(self.pool, self.settings.rules, self.clock))
        object.__setattr__(self, "hide_names", hiding(self.settings))
        object.__setattr__(self, "page", Page(self.metrics.registry))

    @property
    def address(self) -> str:
        """Where the world reaches this API, without a slash at its end; empty without PUBLIC_URL."""
        return (self.settings.public_url or "").rstrip("/")


class Served(Protocol):
    """What the connection of a request knows of it: ``request.protocol``."""

    fault: web.HTTPException | None
    """The answer to a request whose head we do not accept; None if we accept it."""
    is_last: bool
    """Whether no further request can come."""

    def expect_long_body(self) -> None:
        """Limit the time between two pieces of the body of the request, not the time of all of it."""

    def note_progress(self) -> None:
        """Note that the client has taken a piece of the answer."""


def new_request_id() -> str:
    """Return an id for a request that has none."""
    return f"{random.getrandbits(64):016x}"


CONTEXT = web.AppKey("context", ApiContext)

CREATION = web.AppKey("creation", Coalescer[NewUser, User])
"""Stores new users, many at a time."""

READING = web.AppKey("reading", Coalescer[UUID, User])
"""Reads users by id, many at a time."""

HELD: web.AppKey[Callable[[UUID], Awaitable[dict[str, Any]]]] = web.AppKey("held")
"""Reads everything that is held on a person, as JSON members."""

Report = Callable[[web.Response, str, str, str], None]
"""Counts and logs a refusal, and sets the headers of the answer: takes answer, id, reason and the client's address."""

REFUSALS: web.AppKey[Report] = web.AppKey("refusals")
"""Reports requests that the parser refuses, which no middleware sees."""

CLIENT = web.RequestKey("client", str)
"""The name of the API key that the request came with."""

CALL_ID = web.RequestKey("request_id", str)
"""The id of the request, which its log lines and the header X-Request-ID have."""

RATE = web.RequestKey("rate", str)
"""How many more requests the client may send: the field RateLimit. Missing where RATE_LIMIT does not count."""

PEER = web.RequestKey("peer", str)
"""The address of the client behind trusted proxies; missing if no proxies are configured."""

IS_TRUSTED: web.AppKey[Callable[[str], bool]] = web.AppKey("is_trusted")
"""Says whether an address belongs to a trusted proxy."""

SUBJECT = web.RequestKey("subject", str)
"""The id of the user or message that the request is about."""


def actor_of(request: web.Request) -> Actor:
    """Return who sends a request, for the record of changes."""
    # Without keys none is looked for: if a request lacks one, ``get`` raises and catches an error, which is slow.
    key = request.get(CLIENT) if request.app[CONTEXT].keys.required else None
    return Actor("api" if key is None else f"api:{key}", request[CALL_ID])
