"""The processes that run: each renews its own row regularly, and can read the rows of the others.

``seen_at`` is by the database's clock, because processes compare it. ``started_at`` is by the process's own clock.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from birthday.store.connection import Connection


@dataclass(frozen=True, slots=True)
class Process:
    """What one process reports of itself. ``settings`` are those that must be the same everywhere, as text.

    ``circuit`` is the state of its circuit breaker, None where there is no worker; ``circuit_reason`` is why it opened.
    """

    id: UUID
    host: str
    pid: int
    roles: str
    version: str
    commit: str
    tzdata: str
    settings: Mapping[str, str]
    started_at: datetime
    circuit: str | None = None
    circuit_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A process, and how many seconds ago it reported, by the database's clock."""

    process: Process
    seconds_ago: float


async def report(connection: Connection, process: Process) -> None:
    """Report that a process runs, and remove processes that have not reported for an hour.

    Safe to run concurrently: each process writes its own row only, and skips old rows that another one is removing.
    """
    await connection.execute(
        """
        WITH gone AS (
            DELETE FROM processes WHERE id IN (
                SELECT id FROM processes WHERE seen_at < clock_timestamp() - interval '1 hour' AND id <> $1
                FOR UPDATE SKIP LOCKED)
        )
        INSERT INTO processes (id, host, pid, roles, version, commit, tzdata, settings, started_at, circuit,
                               circuit_reason, seen_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, clock_timestamp())
        ON CONFLICT (id) DO UPDATE SET circuit = excluded.circuit, circuit_reason = excluded.circuit_reason,
                                       seen_at = excluded.seen_at
        """,
        *(asdict(process) | {"settings": json.dumps(dict(process.settings))}).values(),
    )


async def withdraw(connection: Connection, process_id: UUID) -> None:
    """Remove the row of a process that stops."""
    await connection.execute("DELETE FROM processes WHERE id = $1", process_id)


async def read_processes(connection: Connection, within_seconds: float) -> Sequence[Seen]:
    """Return the processes that have reported within ``within_seconds``, in order of role, host and start."""
    rows = await connection.fetch(
        """
        SELECT id, host, pid, roles, version, commit, tzdata, settings, circuit, circuit_reason, started_at,
               greatest(extract(epoch FROM clock_timestamp() - seen_at), 0)::float8 AS seconds_ago
        FROM processes WHERE seen_at > clock_timestamp() - make_interval(secs => $1)
        ORDER BY roles, host, started_at, id
        """,
        within_seconds,
    )
    found = []
    for row in rows:
        members = dict(row) | {"settings": json.loads(row["settings"])}
        seconds_ago = members.pop("seconds_ago")
        found.append(Seen(Process(**members), seconds_ago))
    return found
