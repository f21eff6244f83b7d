"""How far the planner's jobs have come. A row is locked by whoever works on it."""

from datetime import datetime, timedelta

import asyncpg

from birthday.store.connection import Connection

PLANNED = "planned"

SWEPT = "swept"


async def lock_watermark(connection: Connection, name: str) -> datetime | None:
    """Return how far a job has come (None at first), and lock its watermark until the transaction ends."""
    await connection.execute(
        "INSERT INTO watermarks (name, reached_at) VALUES ($1, '-infinity') ON CONFLICT (name) DO NOTHING", name
    )
    reached_at: datetime | None = await connection.fetchval(
        "SELECT nullif(reached_at, '-infinity') FROM watermarks WHERE name = $1 FOR UPDATE", name
    )
    return reached_at


async def read_watermark(connection: Connection, name: str) -> datetime | None:
    """Return how far a job has come; None if it was never done."""
    reached_at: datetime | None = await connection.fetchval(
        "SELECT nullif(reached_at, '-infinity') FROM watermarks WHERE name = $1", name
    )
    return reached_at


async def set_watermark(connection: Connection, name: str, reached_at: datetime) -> None:
    """Store how far a job has come; its row must be held by ``lock_watermark``."""
    await connection.execute("UPDATE watermarks SET reached_at = $2 WHERE name = $1", name, reached_at)


async def request_sweep(connection: Connection | asyncpg.Pool) -> None:
    """Request a sweep, because a message may be missing: the planner's next tick looks over its whole window.

    This does not wait for a planner, because a planner locks this row only for the length of a statement.
    """
    await connection.execute("UPDATE watermarks SET reached_at = '-infinity' WHERE name = $1", SWEPT)


async def begin_sweep(pool: asyncpg.Pool, now: datetime, every: timedelta) -> datetime | None:
    """Begin a sweep if the last one is ``every`` ago or longer, or if one was requested.

    Returns:
        A token for ``end_sweep``; None if no sweep is due. If the sweep does not end, another one is due.
    """
    begun = now - every
    due: datetime | None = await pool.fetchval(
        """
        INSERT INTO watermarks AS swept (name, reached_at) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET reached_at = $2
        WHERE swept.reached_at NOT BETWEEN $2 AND $3 OR swept.reached_at = $2
        RETURNING reached_at
        """,
        SWEPT,
        begun,
        now + every,
    )
    return due


async def end_sweep(pool: asyncpg.Pool, begun: datetime, now: datetime) -> None:
    """Record that the sweep with the token ``begun`` is done, unless another one has been requested meanwhile."""
    await pool.execute("UPDATE watermarks SET reached_at = $3 WHERE name = $1 AND reached_at = $2", SWEPT, begun, now)
