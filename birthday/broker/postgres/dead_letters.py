"""The dead letters of the queue in PostgreSQL, by position."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg

from birthday.broker.protocol import DeadLetter, decode_payload

_BROWSE_LIMIT: Final = 200
"""Bounds the memory of one step, because some dead letters may have a megabyte."""


class PostgresDeadLetters:
    """A ``DeadLetters`` that continues after the last position: the instant of death, then the row's id."""

    def __init__(self, fetch: Callable[..., Awaitable[list[asyncpg.Record]]]) -> None:
        self._fetch = fetch
        self._died_at = datetime(1970, 1, 1, tzinfo=UTC)
        self._id = 0

    async def take(self) -> list[DeadLetter]:
        """Read the next rows; see ``DeadLetters``."""
        rows = await self._fetch(
            """
            SELECT id, body, dead_at FROM queue_messages
            WHERE dead_at IS NOT NULL AND (dead_at, id) > ($1, $2)
            ORDER BY dead_at, id LIMIT $3
            """,
            self._died_at,
            self._id,
            _BROWSE_LIMIT,
        )
        if rows:
            self._died_at, self._id = rows[-1]["dead_at"], rows[-1]["id"]
        bodies = [row["body"].encode() for row in rows]
        return [
            DeadLetter(row["id"], decode_payload(body), body, "rejected", row["dead_at"], {})
            for row, body in zip(rows, bodies, strict=True)
        ]

    async def drop(self, letters: Sequence[DeadLetter]) -> None:
        """Delete these, in one statement; see ``DeadLetters``."""
        ids = [letter.tag for letter in letters]
        await self._fetch("DELETE FROM queue_messages WHERE id = ANY($1::bigint[]) AND dead_at IS NOT NULL", ids)
