"""What messages say: templates by message type and locale, their versions, and which version is active.

Whoever publishes or activates holds ``active_templates`` against others who do, until the transaction ends. A claim
only reads it, and does not wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from birthday.core.message import BIRTHDAY
from birthday.core.template import BUILT_IN, BUILT_IN_SOURCE, DEFAULT, Source, TemplateKey, template_name
from birthday.errors import ConflictError, NotFoundError
from birthday.store.connection import Connection

COUNTED_PAGES: Final = 200
"""How many pages of a table are read to count who gets which template: some 10,000 users."""
_LAST_ID: Final = UUID(int=2**128 - 1)


MAX_VERSION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a template: who published it, and whether it is the one that is sent. Version 0 has no author."""

    key: TemplateKey
    source: Source
    is_active: bool
    created_at: datetime | None
    created_by: str | None


@dataclass(frozen=True, slots=True)
class Active:
    """Which version is sent, and who decided that. Version 0 that nobody activated is what is built in."""

    key: TemplateKey
    activated_at: datetime | None
    activated_by: str | None


class Audience(NamedTuple):
    """Users of one locale, and the locale of the template that they get now; None if they get nothing."""

    message_type: str
    user_locale: str | None
    locale: str | None
    users: int


@dataclass(frozen=True, slots=True)
class Audiences:
    """Who gets which template now. If ``is_exact`` is false, numbers are estimates from a sample."""

    found: tuple[Audience, ...]
    is_exact: bool

    def count(self, message_type: str, locale: str | None) -> int:
        """Return how many users get a template; None: how many have such a date, and get nothing."""
        return sum(one.users for one in self.found if (one.message_type, one.locale) == (message_type, locale))


@dataclass(frozen=True, slots=True)
class Person:
    """What templates know of a user. ``day`` is the date of birth or the first day of an anniversary."""

    id: UUID
    first_name: str
    last_name: str
    email: str
    locale: str | None
    attributes: dict[str, Any]
    day: date


async def read_types(connection: Connection) -> list[str]:
    """Return the message types that are planned: birthday, then the others that have a published template, by name."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT message_type FROM active_templates WHERE version > 0 AND message_type <> $1
        ORDER BY message_type
        """,
        BIRTHDAY,
    )
    return [BIRTHDAY, *(row["message_type"] for row in rows)]


async def read_sources(connection: Connection, keys: Sequence[TemplateKey]) -> dict[TemplateKey, Source]:
    """Return the sources of those of ``keys`` that are stored."""
    rows = await connection.fetch(
        """
        SELECT t.message_type, t.locale, t.version, t.message, t.subject, t.html, t.payload
        FROM templates t JOIN unnest($1::text[], $2::text[], $3::integer[]) AS wanted (message_type, locale, version)
             USING (message_type, locale, version)
        """,
        [key.message_type for key in keys],
        [key.locale for key in keys],
        [key.version for key in keys],
    )
    return {TemplateKey(*row[:3]): Source(*row[3:]) for row in rows}


async def list_active(connection: Connection) -> list[Active]:
    """Return the active version of each template that was ever published, and what is built in; by type and locale."""
    rows = await connection.fetch(
        "SELECT message_type, locale, version, activated_at, activated_by FROM active_templates"
    )
    stored = {tuple(row[:2]): Active(TemplateKey(*row[:3]), *row[3:]) for row in rows}
    found = {BUILT_IN[:2]: Active(BUILT_IN, None, None)} | stored
    return sorted(found.values(), key=lambda one: place_of(*one.key[:2]))


def place_of(message_type: str, locale: str) -> tuple[str, bool, str]:
    """Return what templates are ordered by."""
    return message_type, locale != DEFAULT, locale


async def list_versions(
    connection: Connection, message_type: str, locale: str, limit: int, before: int = MAX_VERSION
) -> list[Version]:
    """Return the newest versions of a template before a version, the newest first; empty if there are none."""
    rows = await connection.fetch(
        """
        SELECT t.version, t.message, t.subject, t.html, t.payload, t.created_at, t.created_by,
               coalesce(a.version = t.version, false) AS is_active
        FROM templates t LEFT JOIN active_templates a USING (message_type, locale)
        WHERE message_type = $1 AND locale = $2 AND t.version < $4 ORDER BY t.version DESC LIMIT $3
        """,
        message_type,
        locale,
        limit,
        before,
    )
    return [_version(message_type, locale, row) for row in rows]


async def read_version(connection: Connection, message_type: str, locale: str, version: int | None = None) -> Version:
    """Return a version of a template, by default the one that is active.

    Raises:
        NotFoundError: if there is none.
    """
    row = await connection.fetchrow(
        """
        SELECT t.version, t.message, t.subject, t.html, t.payload, t.created_at, t.created_by,
               coalesce(a.version = t.version, false) AS is_active
        FROM templates t LEFT JOIN active_templates a USING (message_type, locale)
        WHERE message_type = $1 AND locale = $2 AND t.version = coalesce($3, a.version)
        """,
        message_type,
        locale,
        version,
    )
    if row is not None:
        return _version(message_type, locale, row)
    if (message_type, locale) == BUILT_IN[:2] and not version:
        active = await _read_active(connection, message_type, locale)
        return Version(BUILT_IN, BUILT_IN_SOURCE, not active, None, None)
    which = "" if version is None else f", version {version}"
    raise NotFoundError(f"there is no template {template_name(message_type, locale)}{which}", "unknown_template")


async def choose_locale(connection: Connection, message_type: str, user_locale: str | None) -> str:
    """Return the locale of the template that a user of ``user_locale`` gets now.

    Raises:
        NotFoundError: if nothing of this type is published for the user.
    """
    row = await connection.fetchrow("SELECT locale FROM choose_template($1, $2)", message_type, user_locale)
    if row is None:
        raise NotFoundError(f"there is no template {message_type}", "unknown_template")
    locale: str = row["locale"]
    return locale


async def count_audiences(connection: Connection, pages: int = COUNTED_PAGES) -> Audiences:
    """Count who gets which template: exactly if users and dates fit in so many pages each, otherwise in a sample."""
    [shares] = await connection.fetch(
        """
        SELECT least(1, $1 * 8192 / greatest(pg_relation_size('users'), 1)::float8) AS users,
               least(1, $1 * 8192 / greatest(pg_relation_size('anniversaries'), 1)::float8) AS dates
        """,
        pages,
    )
    rows = await connection.fetch(
        """
        WITH sampled AS MATERIALIZED (
            SELECT user_id, message_type FROM anniversaries TABLESAMPLE SYSTEM (100 * $2::float8) REPEATABLE (0)
            WHERE deleted_at IS NULL AND date IS NOT NULL
        ), given AS (
            SELECT 'birthday' AS message_type, locale, count(*) AS users
            FROM users TABLESAMPLE SYSTEM (100 * $1::float8) REPEATABLE (0)
            WHERE deleted_at IS NULL AND NOT suppressed
            GROUP BY locale
            UNION ALL
            -- OFFSET, so that the few are looked up one by one, whatever their number is taken for.
            SELECT sampled.message_type, u.locale, count(*)
            FROM sampled CROSS JOIN LATERAL (
                SELECT locale, suppressed FROM users WHERE id = sampled.user_id OFFSET 0) u
            WHERE NOT u.suppressed
            GROUP BY sampled.message_type, u.locale
        )
        SELECT given.message_type, given.locale AS user_locale, chosen.locale, given.users
        FROM given LEFT JOIN LATERAL choose_template(given.message_type, given.locale) chosen ON true
        """,
        *shares,
    )
    found = [
        Audience(kind, user_locale, locale, _estimate(users, shares["users" if kind == BIRTHDAY else "dates"]))
        for kind, user_locale, locale, users in rows
    ]
    found.sort(key=lambda one: (-one.users, one.message_type, one.user_locale or ""))
    return Audiences(tuple(found), is_exact=min(shares) == 1)


def _estimate(counted: int, share: float) -> int:
    """Return a number for all of which a share was counted: with two digits if it is not known exactly."""
    return counted if share == 1 else int(float(f"{counted / share:.1e}"))


async def publish(
    connection: Connection, message_type: str, locale: str, source: Source, now: datetime, by: str
) -> tuple[TemplateKey, bool]:
    """Store a source as a new version and make it active; return it, and False if that source is active already.

    Raises:
        ConflictError: if it would be the first template of a type, and is not the default.
    """
    await hold(connection)
    await _require_default(connection, message_type, locale)
    active = await _read_active(connection, message_type, locale)
    if active is not None and (await read_sources(connection, [active])).get(active) == source:
        return active, False
    latest = await connection.fetchval(
        "SELECT coalesce(max(version), 0) FROM templates WHERE message_type = $1 AND locale = $2", message_type, locale
    )
    key = TemplateKey(message_type, locale, latest + 1)
    await connection.execute(
        """
        INSERT INTO templates (message_type, locale, version, message, subject, html, payload, created_at, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        *key,
        source.message,
        source.subject,
        source.html,
        source.payload,
        now,
        by,
    )
    await _activate(connection, key, now, by)
    return key, True


async def activate(connection: Connection, key: TemplateKey, now: datetime, by: str) -> int:
    """Make a version active, and return which was active before.

    Version 0 is what is built in, and otherwise withdraws the template of a locale.

    Raises:
        NotFoundError: if there is no such version.
        ConflictError: if the type would have no default any more.
    """
    await hold(connection)
    before = await _read_active(connection, key.message_type, key.locale)
    if key.version:
        await read_version(connection, *key)
        await _require_default(connection, key.message_type, key.locale)
    elif key.message_type != BIRTHDAY and key.locale == DEFAULT:
        detail = f"{key.message_type} needs its default; 'birthday pause {key.message_type}' stops the type"
        raise ConflictError(detail, code="default_needed")
    await _activate(connection, key, now, by)
    return 0 if before is None else before.version


async def hold(connection: Connection) -> None:
    """Let nobody else publish or activate until the transaction ends."""
    await connection.execute("LOCK TABLE active_templates IN SHARE ROW EXCLUSIVE MODE")


async def _activate(connection: Connection, key: TemplateKey, now: datetime, by: str) -> None:
    await connection.execute(
        """
        INSERT INTO active_templates (message_type, locale, version, activated_at, activated_by)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (message_type, locale) DO UPDATE
        SET version = excluded.version, activated_at = excluded.activated_at, activated_by = excluded.activated_by
        """,
        *key,
        now,
        by,
    )


async def _read_active(connection: Connection, message_type: str, locale: str) -> TemplateKey | None:
    version = await connection.fetchval(
        "SELECT version FROM active_templates WHERE message_type = $1 AND locale = $2 AND version > 0",
        message_type,
        locale,
    )
    return None if version is None else TemplateKey(message_type, locale, version)


async def _require_default(connection: Connection, message_type: str, locale: str) -> None:
    if message_type == BIRTHDAY or locale == DEFAULT or await _read_active(connection, message_type, DEFAULT):
        return
    detail = f"{message_type} has no default yet, so users of other locales would get nothing: publish {DEFAULT} first"
    raise ConflictError(detail, code="default_needed")


async def read_concerned(
    connection: Connection, message_type: str, locale: str, after: UUID, limit: int
) -> tuple[list[Person], UUID | None]:
    """Look at ``limit`` users after ``after``, in order of id.

    Return those who would get the template of this locale once it is published, and after whom to go on; None if there
    is nobody left.
    """
    # How many are looked at is bounded, not how many are found: of a rare locale there may be one in a million.
    last = await connection.fetchval(
        """
        SELECT user_id FROM yearly_dates
        WHERE message_type = $1 AND deleted_at IS NULL AND user_id > $2 ORDER BY user_id OFFSET $3 LIMIT 1
        """,
        message_type,
        after,
        limit - 1,
    )
    rows = await connection.fetch(
        """
        SELECT u.id, u.first_name, u.last_name, u.email, u.locale, u.attributes, one.date
        FROM (SELECT user_id, date FROM yearly_dates
              WHERE message_type = $1 AND deleted_at IS NULL AND user_id > $3 AND user_id <= $4
              ORDER BY user_id LIMIT $5) one
        -- OFFSET, so that they are looked up one by one, whatever their number is taken for.
        CROSS JOIN LATERAL (SELECT id, first_name, last_name, email, locale, attributes, suppressed
                            FROM users WHERE id = one.user_id OFFSET 0) u
        WHERE NOT u.suppressed AND template_rank($2, u.locale) >= 0
          AND NOT EXISTS (SELECT FROM active_templates a
                          WHERE a.message_type = $1 AND a.version > 0
                            AND template_rank(a.locale, u.locale) > template_rank($2, u.locale))
        ORDER BY one.user_id
        """,
        message_type,
        locale,
        after,
        last or _LAST_ID,
        limit,
    )
    return [_person(row) for row in rows], last


async def read_person(connection: Connection, user_id: UUID, message_type: str) -> Person:
    """Return a live user who has a date of this type.

    Raises:
        NotFoundError: if there is none.
    """
    row = await connection.fetchrow(
        """
        SELECT u.id, u.first_name, u.last_name, u.email, u.locale, u.attributes, one.date
        FROM yearly_dates one JOIN users u ON u.id = one.user_id
        WHERE u.id = $1 AND one.message_type = $2 AND u.deleted_at IS NULL
        """,
        user_id,
        message_type,
    )
    if row is None:
        raise NotFoundError(f"there is no user {user_id} with a date of the type {message_type}", "unknown_user")
    return _person(row)


def _version(message_type: str, locale: str, row: asyncpg.Record) -> Version:
    source = Source(row["message"], row["subject"], row["html"], row["payload"])
    key = TemplateKey(message_type, locale, row["version"])
    return Version(key, source, row["is_active"], row["created_at"], row["created_by"])


def _person(row: asyncpg.Record) -> Person:
    attributes = {} if row["attributes"] is None else orjson.loads(row["attributes"])
    return Person(
        UUID(bytes=row["id"].bytes),
        row["first_name"],
        row["last_name"],
        row["email"],
        row["locale"],
        attributes,
        row["date"],
    )
