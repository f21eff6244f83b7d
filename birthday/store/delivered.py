"""Delivered messages that an operator wants to send once more."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from birthday.store.history import Message, read_messages
from birthday.store.users import Connection


async def find_delivered(connection: Connection, from_at: datetime, before: datetime) -> list[UUID]:
    """Return the ids of messages that were delivered in ``[from_at, before)``, in order of delivery.

    Messages of deleted users are left out, because they are not sent again.
    """
    rows = await connection.fetch(
        """
        SELECT m.id FROM message_logs m JOIN users u ON u.id = m.user_id
        WHERE m.status = 'delivered' AND m.delivered_at >= $1 AND m.delivered_at < $2 AND u.deleted_at IS NULL
        ORDER BY m.delivered_at, m.id
        """,
        from_at,
        before,
    )
    return [row["id"] for row in rows]


async def requeue_delivered(
    connection: Connection, ids: Sequence[UUID], now: datetime, traceparent: str | None = None
) -> list[Message]:
    """Requeue those of ``ids`` that are delivered, as ``requeue_failed`` does with failed ones.

    The row stays, so there is still one message for the year, with the same idempotency key. ``may_have_arrived`` is
    set, so that no message with another key ever replaces it. ``sent_at`` stays the time of the first send.
    """
    await connection.execute(
        "SELECT FROM message_logs WHERE id = ANY($1::uuid[]) AND status = 'delivered' ORDER BY id FOR UPDATE", ids
    )
    rows = await connection.fetch(
        """
        UPDATE message_logs
        SET status = 'queued', attempts = 0, requeued_at = $2, queued_at = $2, updated_at = $2, delivered_at = NULL,
            may_have_arrived = true, error_type = NULL, error_detail = NULL, next_attempt_at = NULL,
            lease_until = NULL, traceparent = coalesce($3, traceparent)
        WHERE id = ANY($1::uuid[]) AND status = 'delivered'
        RETURNING id
        """,
        ids,
        now,
        traceparent,
    )
    return list((await read_messages(connection, [row["id"] for row in rows])).values())
