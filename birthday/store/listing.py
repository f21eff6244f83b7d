"""Lists of users that are selected by filters: each is read in the order of an index, page by page.

The most selective filter decides which index is read, and so the order of the list. The other filters are checked row
by row. A page begins after a place, not at an offset, so it continues the one before it even if users change meanwhile.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from birthday.store.connection import Connection

_START: Final = UUID(int=0)
_FIRST_NAME_FIRST: Final = "1"
_LAST_NAME_FIRST: Final = "2"


class UserFilter(NamedTuple):
    """Which users to list; None is no condition. The arguments of ``is_listed`` in the schema, in its order.

    ``name`` is what a first, last or full name begins with, without regard to case. ``month_day`` is
    ``month * 100 + day`` of the date of birth.
    """

    email: str | None = None
    external_id: str | None = None
    name: str | None = None
    zone: str | None = None
    month_day: int | None = None
    suppressed: bool | None = None
    updated_after: datetime | None = None


class Order(StrEnum):
    """The order of a list of users; its users have a key besides the id, by which they are ordered first.

    CHANGE    ``updated_at``
    ZONE      the zone, of users who have the same birthday
    BIRTHDAY  the birthday, of users in one zone
    NAME      the full name, then for those whose last name alone begins as wanted, the last name first
    ID        the order of creation, without another key
    """

    CHANGE = "u"
    ZONE = "z"
    BIRTHDAY = "b"
    NAME = "n"
    ID = "i"


class Place(NamedTuple):
    """Where a user stands in a list: the key of its order as text, and the id."""

    key: str
    id: UUID


def order_of(wanted: UserFilter) -> Order:
    """Return the order of a list."""
    if wanted.email is not None or wanted.external_id is not None:
        return Order.ID
    if wanted.updated_after is not None:
        return Order.CHANGE
    # Few users are suppressed. Any other index may have to be read to its end for some of them.
    if wanted.suppressed:
        return Order.ID
    if wanted.month_day is not None:
        return Order.ZONE
    if wanted.name is not None:
        return Order.NAME
    return Order.ID if wanted.zone is None else Order.BIRTHDAY


def check_place(place: Place, order: Order) -> None:
    """Refuse a place with a key that cannot be of the order.

    Raises:
        ValueError: if it is such a place.
    """
    match order:
        case Order.CHANGE:
            if datetime.fromisoformat(place.key).tzinfo is None:
                raise ValueError("an instant has an offset")
        case Order.BIRTHDAY:
            int(place.key)
        case Order.ZONE | Order.NAME | Order.ID:
            pass


async def list_users(connection: Connection, wanted: UserFilter, after: Place | None, limit: int) -> list[Place]:
    """Return the places of up to ``limit`` live users after a place, in the order of the list.

    ``after`` must be a place of a list in the same order.
    """
    async with connection.transaction(readonly=True):
        # Reading an index in order ends with the page. A bitmap would hold all users that the filter means: PostgreSQL
        # has no statistics of the expression of a partial index, and takes any beginning of a name for a rare one.
        await connection.execute("SET LOCAL enable_bitmapscan = off")
        match order_of(wanted):
            case Order.CHANGE:
                return await _list_by_change(connection, wanted, after, limit)
            case Order.ZONE:
                return await _list_by_zone(connection, wanted, after or Place(wanted.zone or "", _START), limit)
            case Order.BIRTHDAY:
                return await _list_by_birthday(connection, wanted, after or Place("0", _START), limit)
            case Order.NAME:
                return await _list_by_name(connection, wanted, after or Place(_FIRST_NAME_FIRST, _START), limit)
            case Order.ID:
                return await _list_by_id(connection, wanted, after.id if after else _START, limit)


async def read_cursor_key(connection: Connection) -> bytes:
    """Return a secret of this installation, which hides the keys of places in cursors."""
    secret: bytes = await connection.fetchval(
        "SELECT sha256('cursor'::bytea || value) FROM secrets WHERE name = 'unsubscribe_key'"
    )
    return secret


async def _list_by_id(connection: Connection, wanted: UserFilter, after: UUID, limit: int) -> list[Place]:
    if wanted.external_id is not None:
        statement = """
            SELECT '' AS key, id FROM users u
            WHERE external_id = $2 AND deleted_at IS NULL AND id > $8 AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
            LIMIT $9
            """
    elif wanted.email is not None:
        statement = """
            SELECT '' AS key, id FROM users u
            WHERE lower(email) = lower($1) AND deleted_at IS NULL AND id > $8
              AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
            LIMIT $9
            """
    elif wanted.suppressed:
        statement = """
            SELECT '' AS key, id FROM users u
            WHERE suppressed AND deleted_at IS NULL AND id > $8 AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
            ORDER BY id LIMIT $9
            """
    else:
        statement = """
            SELECT '' AS key, id FROM users u
            WHERE deleted_at IS NULL AND id > $8 AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
            ORDER BY id LIMIT $9
            """
    return _places(await connection.fetch(statement, *wanted, after, limit))


async def _list_by_change(connection: Connection, wanted: UserFilter, after: Place | None, limit: int) -> list[Place]:
    changed_at = datetime.fromisoformat(after.key) if after else wanted.updated_after
    rows = await connection.fetch(
        """
        SELECT updated_at AS key, id FROM users u
        WHERE deleted_at IS NULL AND (updated_at, id) > ($8, $9) AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
        ORDER BY updated_at, id LIMIT $10
        """,
        *wanted,
        changed_at,
        after.id if after else _START,
        limit,
    )
    return _places(rows)


async def _list_by_zone(connection: Connection, wanted: UserFilter, after: Place, limit: int) -> list[Place]:
    # The index has the zone before the birthday, so it is read zone by zone, and only as many as the page needs.
    rows = await connection.fetch(
        """
        WITH RECURSIVE place AS (
            (SELECT timezone, 0::bigint AS before FROM users
             WHERE deleted_at IS NULL AND timezone >= $8 ORDER BY timezone LIMIT 1)
            UNION ALL
            SELECT next.timezone, place.before + counted.users
            FROM place
            CROSS JOIN LATERAL (
                SELECT count(*) AS users FROM users u
                WHERE u.timezone = place.timezone AND u.birth_month_day = $5 AND u.deleted_at IS NULL
                  AND (u.timezone, u.id) > ($8, $9) AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)) counted
            CROSS JOIN LATERAL (
                SELECT timezone FROM users
                WHERE deleted_at IS NULL AND timezone > place.timezone ORDER BY timezone LIMIT 1) next
            WHERE $4::text IS NULL AND place.before + counted.users < $10::bigint
        )
        SELECT place.timezone AS key, found.id
        FROM place
        CROSS JOIN LATERAL (
            SELECT u.id FROM users u
            WHERE u.timezone = place.timezone AND u.birth_month_day = $5 AND u.deleted_at IS NULL
              AND (u.timezone, u.id) > ($8, $9) AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
            ORDER BY u.id LIMIT $10) found
        ORDER BY place.timezone, found.id LIMIT $10
        """,
        *wanted,
        *after,
        limit,
    )
    return _places(rows)


async def _list_by_birthday(connection: Connection, wanted: UserFilter, after: Place, limit: int) -> list[Place]:
    rows = await connection.fetch(
        """
        SELECT birth_month_day::text AS key, id FROM users u
        WHERE timezone = $4 AND deleted_at IS NULL AND (birth_month_day, id) > ($8, $9)
          AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
        ORDER BY birth_month_day, id LIMIT $10
        """,
        *wanted,
        int(after.key),
        after.id,
        limit,
    )
    return _places(rows)


async def _list_by_name(connection: Connection, wanted: UserFilter, after: Place, limit: int) -> list[Place]:
    """Return users whose full name begins as wanted, then the others whose last name does."""
    half, key, found = after.key[:1], after.key[1:], []
    if half == _FIRST_NAME_FIRST:
        # No text sorts after the last code point, so the two comparisons mean: begins with.
        rows = await connection.fetch(
            """
            SELECT lower(first_name || ' ' || last_name) AS key, id FROM users u
            WHERE deleted_at IS NULL
              AND lower(first_name || ' ' || last_name) COLLATE "C" >= lower($3)
              AND lower(first_name || ' ' || last_name) COLLATE "C" < lower($3) || chr(1114111)
              AND (lower(first_name || ' ' || last_name) COLLATE "C", id) > ($8, $9)
              AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
            ORDER BY lower(first_name || ' ' || last_name) COLLATE "C", id LIMIT $10
            """,
            *wanted,
            key,
            after.id,
            limit,
        )
        found = _places(rows, half)
        key, after = "", Place(_LAST_NAME_FIRST, _START)
    if len(found) < limit:
        rows = await connection.fetch(
            """
            SELECT lower(last_name || ' ' || first_name) AS key, id FROM users u
            WHERE deleted_at IS NULL
              AND lower(last_name || ' ' || first_name) COLLATE "C" >= lower($3)
              AND lower(last_name || ' ' || first_name) COLLATE "C" < lower($3) || chr(1114111)
              AND (lower(last_name || ' ' || first_name) COLLATE "C", id) > ($8, $9)
              AND NOT starts_with(lower(first_name || ' ' || last_name), lower($3))
              AND is_listed(u, $1, $2, $3, $4, $5, $6, $7)
            ORDER BY lower(last_name || ' ' || first_name) COLLATE "C", id LIMIT $10
            """,
            *wanted,
            key,
            after.id,
            limit - len(found),
        )
        found += _places(rows, _LAST_NAME_FIRST)
    return found


def _places(rows: Sequence[Any], half: str = "") -> list[Place]:
    return [Place(f"{half}{row['key']}", row["id"]) for row in rows]
