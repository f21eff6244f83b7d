"""Which message types operators have paused. Each has a row, so that a pause outlives every process."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from birthday.store.changes import PAUSE, Actor, record_changes
from birthday.store.connection import Connection

EVERY_OTHER: Final = "*"
"""Stands for the types that have no row of their own, such as one that is published while everything is paused."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The last pause or resumption of a message type: when it was, and who did it."""

    message_type: str
    is_paused: bool
    changed_at: datetime
    changed_by: str


async def read_pauses(connection: Connection) -> list[Pause]:
    """Return every message type that was ever paused, with its current state, in order of name."""
    rows = await connection.fetch(
        "SELECT message_type, is_paused, changed_at, changed_by FROM pauses ORDER BY message_type"
    )
    return [Pause(row["message_type"], row["is_paused"], row["changed_at"], row["changed_by"]) for row in rows]


def in_force(pauses: Iterable[Pause]) -> list[Pause]:
    """Return the pauses that hold now, each of a type that has a name."""
    return [one for one in pauses if one.is_paused and one.message_type != EVERY_OTHER]


async def set_paused(
    connection: Connection, message_types: Collection[str], *, paused: bool, now: datetime, by: Actor
) -> None:
    """Pause or resume message types. If one is in that state already, its ``changed_at`` and ``changed_by`` stay.

    Runs within the caller's transaction.
    """
    rows = await connection.fetch(
        """
        INSERT INTO pauses (message_type, is_paused, changed_at, changed_by)
        SELECT message_type, $2, $3, $4 FROM unnest($1::text[]) AS message_type ORDER BY message_type
        ON CONFLICT (message_type) DO UPDATE
        SET is_paused = excluded.is_paused, changed_at = excluded.changed_at, changed_by = excluded.changed_by
        WHERE pauses.is_paused <> excluded.is_paused
        RETURNING message_type
        """,
        list(message_types),
        paused,
        now,
        by.name,
    )
    action = "paused" if paused else "resumed"
    await record_changes(connection, [by.change(action, PAUSE, row["message_type"]) for row in rows], now)
