"""Delivery events that are still to be sent, and the lease of the process that sends them.

The lease is by the database's clock. It keeps two processes from sending the same; if it runs out during a send, the
event may arrive twice, with the same id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from birthday.core.events import Event
from birthday.store.connection import Connection
from birthday.store.feed import FeedPosition


@dataclass(frozen=True, slots=True)
class Stream:
    """How far in the feed events were made, how many are still to be sent, and since when the oldest has occurred.

    ``stopped`` says that the receiver wants no more.
    """

    after: FeedPosition
    stopped: bool
    waiting: int
    oldest_at: datetime | None


async def hold_stream(connection: Connection, holder: UUID, receiver: str, lease: timedelta) -> Stream | None:
    """Take or renew the lease for a receiver; None if another process has it.

    After three days without any holder, the stream begins anew at the end of the feed. Another receiver than before is
    not stopped.
    """
    row = await connection.fetchrow(
        """
        UPDATE event_stream
        SET holder = $1, lease_until = clock_timestamp() + $3::interval, receiver = $2,
            stopped_at = CASE WHEN receiver = $2 THEN stopped_at END,
            feed_position = CASE WHEN events_are_sent() THEN feed_position ELSE feed_end() END,
            feed_id = CASE WHEN events_are_sent() THEN feed_id ELSE '00000000-0000-0000-0000-000000000000' END
        WHERE holder = $1 OR lease_until < clock_timestamp()
        RETURNING feed_position, feed_id, stopped_at IS NOT NULL AS stopped
        """,
        holder,
        receiver,
        lease,
    )
    if row is None:
        return None
    after = FeedPosition(row["feed_position"], row["feed_id"])
    # The feed's part is also of what a running transaction still holds back.
    waiting = await connection.fetchrow(
        """
        SELECT count(*) AS events, least(min(occurred_at), (
            SELECT stored_at FROM outcomes WHERE (position, last_id) > ($1::bigint, $2::uuid)
            ORDER BY position, last_id LIMIT 1)) AS oldest_at
        FROM events
        """,
        *after,
    )
    return Stream(after, row["stopped"], *(waiting or (0, None)))


async def release_stream(connection: Connection, holder: UUID) -> None:
    """Give back the lease, so that another process need not wait for its end."""
    await connection.execute("UPDATE event_stream SET lease_until = clock_timestamp() WHERE holder = $1", holder)


async def stop_stream(connection: Connection, holder: UUID, now: datetime) -> None:
    """Send nothing to this receiver any more."""
    await connection.execute("UPDATE event_stream SET stopped_at = $2 WHERE holder = $1", holder, now)


async def make_events(connection: Connection, holder: UUID, after: FeedPosition, now: datetime, limit: int) -> None:
    """Make the events of up to ``limit`` outcomes that follow in the feed. Whoever has lost the lease makes none."""
    await connection.execute(
        """
        WITH page AS MATERIALIZED (
            SELECT DISTINCT position, id FROM feed_entries
            WHERE (position, last_id) > ($2::bigint, $3::uuid) AND (position, id) > ($2::bigint, $3::uuid)
              AND position < feed_end()
            ORDER BY position, id LIMIT $5
        ), moved AS (
            UPDATE event_stream SET (feed_position, feed_id) = (
                SELECT page.position, page.id FROM page ORDER BY page.position DESC, page.id DESC LIMIT 1)
            WHERE holder = $1 AND feed_position = $2 AND feed_id = $3 AND EXISTS (SELECT FROM page)
            RETURNING only_row
        )
        INSERT INTO events (id, type, occurred_at, data, next_attempt_at)
        SELECT event_id(m.id, m.feed_position), 'message.' || m.status, m.updated_at,
               json_strip_nulls(json_build_object(
                   'messageId', m.id, 'userId', m.user_id, 'messageType', m.message_type, 'occasionOn', m.occasion_on,
                   'errorType', CASE WHEN m.status = 'failed' THEN m.error_type END)), $4
        FROM moved, page CROSS JOIN LATERAL (SELECT * FROM message_logs WHERE id = page.id OFFSET 0) m
        WHERE m.feed_position = page.position AND m.status IN ('delivered', 'failed', 'expired')
        ON CONFLICT DO NOTHING
        """,
        holder,
        *after,
        now,
        limit,
    )


async def read_due_events(connection: Connection, now: datetime, limit: int) -> list[Event]:
    """Return up to ``limit`` events that may be sent now, those that have failed least first."""
    rows = await connection.fetch(
        """
        SELECT id, type, occurred_at, data, attempts, failing_since FROM events
        WHERE next_attempt_at <= $1 ORDER BY attempts, next_attempt_at, id LIMIT $2
        """,
        now,
        limit,
    )
    return [Event(*row) for row in rows]


async def remove_events(connection: Connection, ids: Sequence[UUID]) -> None:
    """Forget events that were sent or given up."""
    await connection.execute("DELETE FROM events WHERE id = ANY($1::uuid[])", ids)


async def postpone_events(connection: Connection, until: Sequence[tuple[UUID, datetime]], now: datetime) -> None:
    """Note a failed attempt of each of these events, and when the next one may be made."""
    await connection.execute(
        """
        UPDATE events e
        SET attempts = attempts + 1, failing_since = coalesce(failing_since, $3), next_attempt_at = later.at
        FROM unnest($1::uuid[], $2::timestamptz[]) AS later (id, at) WHERE e.id = later.id
        """,
        [event_id for event_id, _ in until],
        [at for _, at in until],
        now,
    )
