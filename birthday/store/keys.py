"""The keys of clients. Rows are never removed. Whoever changes keys holds the table against others who do."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from birthday.store.connection import Connection

SOON: Final = timedelta(days=14)
"""A key that expires within this time should be rotated."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key without its secret. ``replaced_at`` is when it ends because of a rotation; the instant may lie ahead."""

    id: str
    name: str
    scope: str
    digest: bytes = field(repr=False)
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    replaced_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    @property
    def ends_at(self) -> datetime | None:
        """When the key ends; None if it is not to end. A revoked one has ended, whatever the time."""
        if self.expires_at is None or self.replaced_at is None:
            return self.expires_at or self.replaced_at
        return min(self.expires_at, self.replaced_at)

    def works(self, now: datetime) -> bool:
        """Say whether the key is accepted."""
        return self.revoked_at is None and (self.ends_at is None or now < self.ends_at)

    def expires_soon(self, now: datetime) -> bool:
        """Say whether the key works, ends within ``SOON``, and has no successor."""
        ends_soon = self.expires_at is not None and self.expires_at < now + SOON
        return ends_soon and self.replaced_at is None and self.works(now)

    def state(self, now: datetime) -> str:
        """Return the state in a word."""
        if self.revoked_at is not None:
            return "revoked"
        if not self.works(now):
            return "ended"
        return "active" if self.replaced_at is None else "replaced"


class Position(NamedTuple):
    """Where a key stands in the list."""

    created_at: datetime
    id: str


FIRST: Final = Position(datetime.min.replace(tzinfo=UTC), "")
"""The position before any key."""


async def hold_keys(connection: Connection) -> None:
    """Let nobody else change keys until the transaction ends. Readers do not wait."""
    await connection.execute("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE")


async def read_keys(connection: Connection, ended_after: datetime | None = None) -> list[StoredKey]:
    """Return the keys in order of creation; with ``ended_after``, not those that ended before that."""
    rows = await connection.fetch(
        """
        SELECT id, name, scope, digest, created_at, created_by, expires_at, replaced_at, revoked_at, last_used_at
        FROM api_keys
        WHERE coalesce(least(expires_at, replaced_at, revoked_at) > $1, true) ORDER BY created_at, id
        """,
        ended_after,
    )
    return [StoredKey(*row) for row in rows]


async def list_keys(
    connection: Connection, works_at: datetime | None, after: Position | None, limit: int
) -> list[StoredKey]:
    """Return up to ``limit`` keys after a position, in order of creation; with ``works_at``, only those accepted then.

    The condition is ``StoredKey.works``.
    """
    rows = await connection.fetch(
        """
        SELECT id, name, scope, digest, created_at, created_by, expires_at, replaced_at, revoked_at, last_used_at
        FROM api_keys
        WHERE ($1::timestamptz IS NULL OR revoked_at IS NULL AND coalesce(least(expires_at, replaced_at) > $1, true))
          AND (created_at, id) > ($2, $3) ORDER BY created_at, id LIMIT $4
        """,
        works_at,
        *(after or FIRST),
        limit,
    )
    return [StoredKey(*row) for row in rows]


async def has_keys(connection: Connection) -> bool:
    """Say whether a key was ever made."""
    found: bool = await connection.fetchval("SELECT EXISTS (SELECT FROM api_keys)")
    return found


async def insert_key(connection: Connection, key: StoredKey) -> None:
    """Store a new key."""
    await connection.execute(
        """
        INSERT INTO api_keys (id, name, scope, digest, created_at, created_by, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        """,
        key.id,
        key.name,
        key.scope,
        key.digest,
        key.created_at,
        key.created_by,
        key.expires_at,
    )


async def replace_keys(connection: Connection, ids: Collection[str], at: datetime) -> None:
    """Let keys end at ``at``, unless they end earlier."""
    await connection.execute(
        "UPDATE api_keys SET replaced_at = least(replaced_at, $2) WHERE id = ANY($1)", list(ids), at
    )


async def revoke_keys(connection: Connection, ids: Collection[str], now: datetime) -> None:
    """Let keys end at once."""
    await connection.execute(
        "UPDATE api_keys SET revoked_at = $2 WHERE id = ANY($1) AND revoked_at IS NULL", list(ids), now
    )


async def record_uses(connection: Connection, used: Mapping[str, datetime]) -> None:
    """Note when keys were used last. Safe to run concurrently: the latest use wins."""
    ids: Sequence[str] = sorted(used)
    await connection.execute(
        """
        UPDATE api_keys k SET last_used_at = u.at
        FROM unnest($1::text[], $2::timestamptz[]) AS u (id, at)
        WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
        """,
        ids,
        [used[one] for one in ids],
    )
