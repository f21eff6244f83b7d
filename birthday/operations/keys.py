"""Keys of clients: make, rotate and revoke them, and know them in each process.

Keys are stored in the database. One task of each process reads them every two seconds. Requests are checked against
this copy, which needs no I/O.
"""

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import structlog

from birthday.clock import Clock
from birthday.config import ApiKey, Scope
from birthday.errors import ConflictError, FieldError, InvalidInputError, NotFoundError, UnavailableError
from birthday.store.changes import CREATED, KEY, Actor, record_changes
from birthday.store.connection import DATABASE_ERRORS, Connection, borrow, stay_cancelled
from birthday.store.keys import (
    StoredKey,
    has_keys,
    hold_keys,
    insert_key,
    read_keys,
    record_uses,
    replace_keys,
    revoke_keys,
)
from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

ROTATED: Final = "rotated"
REVOKED: Final = "revoked"
EVERY_SECONDS: Final = 2.0
WRITE_USE_EVERY: Final = timedelta(minutes=1)
"""How often the last use of a key is written at most."""
OVERLAP: Final = timedelta(hours=24)
"""How long a key still works after its rotation, unless something else is asked for."""
REMEMBERED: Final = timedelta(days=30)
"""How long a process knows keys that have ended, so that it can tell their clients so."""
LATEST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""No key ends later: asyncpg stores the last microsecond of this second as infinity, and reads it without a zone."""
MOST: Final = 1000
"""How many keys may work at a time: each process holds them all."""
NAME_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
ID_PATTERN: Final = r"^[0-9][0-9a-f]{7}$"
"""Not what a name looks like, because commands take either."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. ``secret`` is what the client sends; nobody can read it again."""

    stored: StoredKey
    secret: str


async def create_key(
    pool: asyncpg.Pool,
    name: str,
    scope: Scope,
    now: datetime,
    by: Actor,
    *,
    expires_at: datetime | None = None,
    configured: Collection[ApiKey] = (),
) -> NewKey:
    """Make a key for a client; ``configured`` are those of API_KEYS.

    Raises:
        InvalidInputError: if the name or the expiry is not accepted.
        ConflictError: if the client has a key, or there are too many.
        UnavailableError: if the database cannot be used.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise InvalidInputError(FieldError("/name", f"{name!r}: {error}")) from None
    if expires_at is not None and expires_at <= now:
        raise InvalidInputError(FieldError("/expiresAt", f"{expires_at.isoformat()} is over: a later time is accepted"))
    if any(name == key.name for key in configured):
        raise ConflictError(f"API_KEYS has a key of the name {name}: choose another name", "/name")
    expires_at = expires_at and min(expires_at, LATEST)
    new = _make(name, scope, now, by, expires_at)
    async with borrow(pool) as connection, connection.transaction():
        working = await _working(connection, now)
        if taken := [key.id for key in working if key.name == name]:
            raise ConflictError(f"{name} has a key, {taken[-1]}: rotate it, or revoke it first", "/name")
        if len(working) >= MOST:
            raise ConflictError(f"{len(working)} keys work: at most {MOST} may; revoke some first")
        await insert_key(connection, new.stored)
        told = {"name": name, "scope": scope.value, "expiresAt": expires_at}
        await record_changes(connection, [by.change(CREATED, KEY, new.stored.id, None, told)], now)
    log.info("key.created", key=new.stored.id, name=name, scope=scope.value, by=by.name)
    return new


def check_name(name: object) -> str:
    """Return the name of a client.

    Raises:
        ValueError: if it is not accepted; the text says what is.
    """
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN.strip("^$"), name):
        raise ValueError("a letter, and up to 63 more of A-Z a-z 0-9 . _ - are accepted")
    return name


async def rotate_key(pool: asyncpg.Pool, wanted: str, now: datetime, by: Actor, overlap: timedelta = OVERLAP) -> NewKey:
    """Make a new key for the client that ``wanted`` names, or has as a key's id; its older keys end after ``overlap``.

    The new key has the same scope, and lives as long from now as the one before did from its creation.

    Raises:
        NotFoundError: if there is no such key that works.
        UnavailableError: if the database cannot be used.
    """
    async with borrow(pool) as connection, connection.transaction():
        working = await _working(connection, now)
        name = _find(working, wanted)[-1].name
        older = [key for key in working if key.name == name]
        last = older[-1]
        expires_at = last.expires_at and now + min(last.expires_at - last.created_at, LATEST - now)
        new = _make(name, Scope(last.scope), now, by, expires_at)
        ids = [key.id for key in older]
        if overlap:
            await replace_keys(connection, ids, now + overlap)
        else:
            await revoke_keys(connection, ids, now)
        await insert_key(connection, new.stored)
        until = {"replacedBy": new.stored.id, "until": now + overlap}
        await record_changes(connection, [by.change(ROTATED, KEY, one, None, until) for one in ids], now)
    seconds = overlap.total_seconds()
    log.info("key.rotated", key=new.stored.id, name=name, replaces=ids, overlap_seconds=seconds, by=by.name)
    return new


async def revoke_key(pool: asyncpg.Pool, wanted: str, now: datetime, by: Actor) -> list[StoredKey]:
    """End a key at once: the one with the id ``wanted``, or all of the client of this name. Return them.

    Raises:
        NotFoundError: if there is no such key that works.
        UnavailableError: if the database cannot be used.
    """
    async with borrow(pool) as connection, connection.transaction():
        found = _find(await _working(connection, now), wanted)
        await revoke_keys(connection, [key.id for key in found], now)
        await record_changes(connection, [by.change(REVOKED, KEY, key.id) for key in found], now)
    log.info("key.revoked", keys=[key.id for key in found], name=found[0].name, by=by.name)
    return [replace(key, revoked_at=now) for key in found]


def _make(name: str, scope: Scope, now: datetime, by: Actor, expires_at: datetime | None) -> NewKey:
    key_id = secrets.choice("0123456789") + secrets.token_hex(4)[1:]
    secret = f"bday_{key_id}_{secrets.token_hex(32)}"
    return NewKey(StoredKey(key_id, name, scope.value, _digest(secret), now, by.name, expires_at), secret)


async def _working(connection: Connection, now: datetime) -> list[StoredKey]:
    """Return the keys that work, in order of creation, and let nobody else change keys in the meantime."""
    await hold_keys(connection)
    return [key for key in await read_keys(connection, now) if key.works(now)]


def _find(working: Sequence[StoredKey], wanted: str) -> list[StoredKey]:
    found = [key for key in working if wanted in {key.id, key.name}]
    if not found:
        raise NotFoundError(
            f"there is no key {wanted} that works; keys of API_KEYS are changed there", "unknown_key_id"
        )
    return found


def _digest(secret: str) -> bytes:
    # An attacker cannot choose the digest, so the time that a look-up by it takes tells nothing of other keys.
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def _mark(digest: bytes) -> str:
    return hashlib.sha256(b"mark" + digest).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key as requests are checked against it. Those of API_KEYS are not stored, and do not end."""

    name: str
    scope: Scope
    mark: str
    """A hash of the key's hash, which tells keys apart and opens nothing."""
    stored: StoredKey | None = None

    def works(self, now: datetime) -> bool:
        """Say whether the key is accepted."""
        return self.stored is None or self.stored.works(now)


class Keys:
    """The keys that this process knows. ``refresh`` them before the first use, then ``watch``."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock, metrics: Metrics, configured: Sequence[ApiKey]) -> None:
        """Know the keys of API_KEYS only before the first ``refresh``."""
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        digests = {bytes.fromhex(key.digest): key for key in configured}
        self._configured = {digest: KnownKey(key.name, key.scope, _mark(digest)) for digest, key in digests.items()}
        self._known = self._configured
        self._marked = {key.mark: key for key in self._known.values()}
        self._working: dict[str, str] = {}
        self._used = set[str]()
        self._unwritten: dict[str, datetime] = {}
        self._written: dict[str, datetime] = {}
        self.expiring: tuple[str, ...] = ()
        """The names of keys that end soon and have no successor."""
        self.required = bool(configured)
        """Whether the API needs a key. It does for ever once there was one: revoking the last one opens nothing."""

    def find(self, given: str) -> KnownKey | None:
        """Return the key that a client has given, also one that has ended not long ago; None if it is not known."""
        return self._known.get(_digest(given))

    def find_marked(self, mark: str) -> KnownKey | None:
        """Return the key with a mark, which a session names instead of the key; None if it is not known."""
        return self._marked.get(mark)

    def note_use(self, key: KnownKey) -> None:
        """Remember that a key was used now; ``watch`` writes it down."""
        if key.stored is not None:
            self._used.add(key.stored.id)

    async def watch(self) -> None:
        """Refresh regularly until cancelled. While the database is away, the last known keys hold."""
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            try:
                await self.refresh()
                await self._write_uses()
            except (UnavailableError, *DATABASE_ERRORS) as error:
                stay_cancelled()
                self._metrics.collector_errors.labels("api_keys").inc()
                log.debug("keys.unavailable", error=error)

    async def refresh(self) -> None:
        """Read the keys once, and log which ones work if that has changed."""
        now = self._clock.now()
        async with borrow(self._pool) as connection:
            stored = await read_keys(connection, now - REMEMBERED)
            self.required = self.required or bool(stored) or await has_keys(connection)
        self._known = {
            key.digest: KnownKey(key.name, Scope(key.scope), _mark(key.digest), key) for key in stored
        } | self._configured
        self._marked = {key.mark: key for key in self._known.values()}
        before, self._working = self._working, {key.id: key.name for key in stored if key.works(now)}
        self.expiring = tuple(key.name for key in stored if key.expires_soon(now))
        self._metrics.api_keys_expiring.set(len(self.expiring))
        if self._working != before:
            log.info("keys.changed", working=self._working)
            names = {key.name for key in self._configured.values()}
            if twice := sorted(names.intersection(self._working.values())):
                reason = "API_KEYS and the database have keys of these names; a revocation ends only the latter"
                log.warning("keys.same_name", names=twice, reason=reason)

    async def _write_uses(self) -> None:
        """Write the last use of each key, unless that was done less than a minute ago."""
        now = self._clock.now()
        self._unwritten |= dict.fromkeys(self._used, now)
        self._used.clear()
        due = {
            one: at
            for one, at in self._unwritten.items()
            if one not in self._written or now - self._written[one] >= WRITE_USE_EVERY
        }
        if not due:
            return
        async with borrow(self._pool) as connection:
            await record_uses(connection, due)
        self._written |= dict.fromkeys(due, now)
        self._unwritten = {one: at for one, at in self._unwritten.items() if one not in due}
