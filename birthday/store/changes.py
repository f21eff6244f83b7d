"""Who changed what: rows that are only added, in the transaction of the change itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from birthday.core.ident import first_uuid7, uuid7
from birthday.core.user import Profile
from birthday.store.connection import Connection, rows_changed

USER: Final = "user"
MESSAGE: Final = "message"
TEMPLATE: Final = "template"
KEY: Final = "key"
SUPPRESSION: Final = "suppression"
PAUSE: Final = "pause"
ENTITIES: Final = (USER, MESSAGE, TEMPLATE, KEY, SUPPRESSION, PAUSE)
CREATED: Final = "created"
CHANGED: Final = "changed"
DELETED: Final = "deleted"
IMPORTED: Final = "imported"
VIEWED: Final = "viewed"

_MICROSECOND: Final = timedelta(microseconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_EVER: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_LAST_ID: Final = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Change:
    """What ``actor`` did to an entity. ``before`` and ``after`` have the values that changed, if there are any."""

    actor: str
    action: str
    entity: str
    entity_id: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    request_id: str | None = None


class Actor(NamedTuple):
    """Who does something: ``api:<key>``, ``api``, ``cli:<user@host>`` or ``link``, and in which request of the API."""

    name: str
    request_id: str | None = None

    def change(
        self,
        action: str,
        entity: str,
        entity_id: object,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> Change:
        """Return what this actor did."""
        return Change(self.name, action, entity, str(entity_id), before, after, self.request_id)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A change as stored. ``id`` sorts by time."""

    id: UUID
    at: datetime
    change: Change


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Which changes are listed: those that meet all given conditions, at ``from_at`` or later and before ``to_at``."""

    entity: str | None = None
    entity_id: str | None = None
    actor: str | None = None
    from_at: datetime | None = None
    to_at: datetime | None = None
    views: bool = True
    """Whether it is listed, too, who has viewed personal data."""


async def record_changes(connection: Connection, changes: Sequence[Change], now: datetime) -> None:
    """Record changes within the caller's transaction, which makes them."""
    if not changes:
        return
    await connection.execute(
        """
        INSERT INTO changes (id, at, actor, action, entity, entity_id, before, after, request_id)
        SELECT id, $2, actor, action, entity, entity_id, before, after, request_id
        FROM unnest($1::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[], $8::jsonb[], $9::text[])
            AS new (id, actor, action, entity, entity_id, before, after, request_id)
        """,
        # Within a transaction, the ids keep the order.
        [uuid7(now + number * _MICROSECOND) for number in range(len(changes))],
        now,
        [one.actor for one in changes],
        [one.action for one in changes],
        [one.entity for one in changes],
        [one.entity_id for one in changes],
        [_json(one.before) for one in changes],
        [_json(one.after) for one in changes],
        [one.request_id for one in changes],
    )


def profile_changes(by: Actor, user_id: UUID, old: Profile, new: Profile) -> list[Change]:
    """Return the change of a user's profile, with the members that differ; none if there are none."""
    before, after = old.as_input(), new.as_input()
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not names:
        return []
    values = ({name: members.get(name) for name in names} for members in (before, after))
    return [by.change(CHANGED, USER, user_id, *values)]


async def list_changes(connection: Connection, wanted: ChangeFilter, before: UUID | None, limit: int) -> list[Recorded]:
    """Return up to ``limit`` changes with ids less than ``before``, newest first."""
    from_at, to_at = wanted.from_at or _EVER, wanted.to_at or _NEVER
    last_id = _LAST_ID if to_at > _NEVER - _MILLISECOND else first_uuid7(to_at + _MILLISECOND)
    # The plan is made for the conditions that are given, so that each has its index.
    async with connection.transaction(readonly=True):
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        rows = await connection.fetch(
            """
            SELECT id, at, actor, action, entity, entity_id, before, after, request_id FROM changes
            WHERE id < $1 AND id >= $2 AND at >= $8 AND at < $9
              AND ($3::text IS NULL OR actor = $3)
              AND ($4::text IS NULL OR entity = $4)
              AND ($10 OR action <> 'viewed')
              AND ($5::text IS NULL OR id = $6
                   OR entity_id = $5 AND NOT (entity = 'user' AND action = 'created'))
            ORDER BY id DESC LIMIT $7
            """,
            min(before or _LAST_ID, last_id),
            first_uuid7(from_at),
            wanted.actor,
            wanted.entity,
            wanted.entity_id,
            _id(wanted.entity_id or ""),
            limit,
            from_at,
            to_at,
            wanted.views,
        )
    return [_recorded(row) for row in rows]


async def read_changes_about(connection: Connection, entity_ids: Sequence[str]) -> list[Recorded]:
    """Return all changes of some entities, the oldest first, with the creation of the first, if it is a user."""
    rows = await connection.fetch(
        """
        SELECT id, at, actor, action, entity, entity_id, before, after, request_id FROM changes
        WHERE entity_id = ANY($1::text[]) AND NOT (entity = 'user' AND action = 'created') OR id = $2
        ORDER BY id
        """,
        entity_ids,
        _id(entity_ids[0]),
    )
    return [_recorded(row) for row in rows]


async def remove_old_changes(pool: asyncpg.Pool, before: datetime, limit: int) -> int:
    """Remove up to ``limit`` changes that were made before an instant; return how many."""
    async with pool.acquire() as connection, connection.transaction():
        await allow_removal(connection)
        status = await connection.execute(
            """
            DELETE FROM changes WHERE id IN (
                SELECT id FROM changes WHERE id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
            """,
            first_uuid7(before),
            limit,
        )
    return rows_changed(status)


async def allow_removal(connection: Connection) -> None:
    """Let the caller's transaction change and remove recorded changes."""
    await connection.execute("SELECT set_config('birthday.changes', 'removed', true)")


def _id(entity_id: str) -> UUID | None:
    """Return the id that the creation of a user has."""
    try:
        return UUID(entity_id)
    except ValueError:
        return None


def _json(values: Mapping[str, Any] | None) -> str | None:
    return None if values is None else orjson.dumps(values).decode()


def _recorded(row: asyncpg.Record) -> Recorded:
    before, after = (None if values is None else orjson.loads(values) for values in (row["before"], row["after"]))
    own = (row["actor"], row["action"], row["entity"], row["entity_id"], before, after, row["request_id"])
    return Recorded(row["id"], row["at"], Change(*own))
