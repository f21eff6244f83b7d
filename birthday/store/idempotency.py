"""The answers to requests with an Idempotency-Key, each stored in the transaction that did what was asked for.

So there is an answer exactly if there is an effect, however a process ends. The primary key makes concurrent requests
with the same key wait for each other, in all processes: of two that store an answer, the second one fails and has no
effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from birthday.errors import InProgressError, RepeatedError
from birthday.store.connection import Connection

KEPT_FOR: Final = timedelta(hours=24)
WAIT_SECONDS: Final = 3.0
"""How long a request waits for an earlier one with its key that is still being carried out."""


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with a key: ``id`` is a hash of client and key, ``fingerprint`` one of what is asked for."""

    id: bytes
    fingerprint: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; ``subject_id`` is the user whom it is about."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    subject_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored under a key. ``fingerprint`` is None if the person has been erased."""

    fingerprint: bytes | None
    answer: Answer


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as stored, for whom it is about."""

    created_at: datetime
    status: int
    body: str


async def find_answer(connection: Connection, request: KeyedRequest) -> Kept | None:
    """Return what is stored under the key of a request. What is older than ``KEPT_FOR`` is removed."""
    row = await connection.fetchrow(
        "SELECT fingerprint, status, headers, body, subject_id, created_at FROM idempotency_keys WHERE id = $1",
        request.id,
    )
    if row is None:
        return None
    if row["created_at"] <= request.at - KEPT_FOR:
        await connection.execute(
            "DELETE FROM idempotency_keys WHERE id = $1 AND created_at = $2", request.id, row["created_at"]
        )
        return None
    headers = orjson.loads(row["headers"] or "{}")
    return Kept(row["fingerprint"], Answer(row["status"], headers, row["body"] or b"", row["subject_id"]))


async def reserve(connection: Connection, request: KeyedRequest) -> None:
    """Take the key of a request until the transaction ends; ``fill`` then stores the answer.

    Raises:
        RepeatedError: if there is an answer under this key.
        InProgressError: if another transaction has had the key for ``WAIT_SECONDS``.
    """
    try:
        # While the effect is made elsewhere, the transaction may be idle for longer than a session's usually may.
        await connection.execute(
            """
            INSERT INTO idempotency_keys (id, fingerprint, created_at)
            SELECT $1, $2, $3 FROM set_config('idle_in_transaction_session_timeout', '10min', true)
            """,
            request.id,
            request.fingerprint,
            request.at,
            timeout=WAIT_SECONDS,
        )
    except asyncpg.UniqueViolationError:
        raise RepeatedError from None
    except TimeoutError:
        raise InProgressError from None


async def keep_user(connection: Connection, user_id: UUID) -> None:
    """Let nobody erase a user until the transaction ends, because the answer to be stored is about that user."""
    await connection.execute("SELECT FROM users WHERE id = $1 FOR KEY SHARE", user_id)


async def fill(connection: Connection, request: KeyedRequest, answer: Answer) -> None:
    """Store the answer to a request that has reserved its key in this transaction."""
    await connection.execute(
        "UPDATE idempotency_keys SET status = $2, headers = $3, body = $4, subject_id = $5 WHERE id = $1",
        request.id,
        answer.status,
        orjson.dumps(answer.headers).decode(),
        answer.body,
        answer.subject_id,
    )


async def store_answers(connection: Connection, answers: Sequence[tuple[KeyedRequest, Answer]]) -> None:
    """Store the answers to several requests, in the transaction of their effects.

    Raises:
        RepeatedError: if there is an answer already under one of the keys: then the transaction must not be committed.
    """
    # In order of id, so that concurrent transactions cannot deadlock.
    ordered = sorted(answers, key=lambda one: one[0].id)
    try:
        await connection.execute(
            """
            INSERT INTO idempotency_keys (id, fingerprint, created_at, status, headers, body, subject_id)
            SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::timestamptz[], $4::smallint[], $5::text[], $6::bytea[],
                                 $7::uuid[])
            """,
            [request.id for request, _ in ordered],
            [request.fingerprint for request, _ in ordered],
            [request.at for request, _ in ordered],
            [answer.status for _, answer in ordered],
            [orjson.dumps(answer.headers).decode() for _, answer in ordered],
            [answer.body for _, answer in ordered],
            [answer.subject_id for _, answer in ordered],
        )
    except asyncpg.UniqueViolationError:
        raise RepeatedError from None


async def read_answers(connection: Connection, user_id: UUID) -> list[StoredAnswer]:
    """Return the stored answers that are about a user."""
    rows = await connection.fetch(
        "SELECT created_at, status, body FROM idempotency_keys WHERE subject_id = $1 ORDER BY created_at", user_id
    )
    return [StoredAnswer(row["created_at"], row["status"], (row["body"] or b"").decode()) for row in rows]


async def forget_answers(connection: Connection, user_ids: Sequence[UUID]) -> int:
    """Remove what is stored about users who are erased, and return how many answers that were.

    Their keys stay taken, so that a late repeat creates nobody again.
    """
    rows = await connection.fetch(
        """
        UPDATE idempotency_keys SET fingerprint = NULL, headers = NULL, body = NULL, subject_id = NULL
        WHERE subject_id = ANY($1::uuid[]) RETURNING id
        """,
        user_ids,
    )
    return len(rows)


async def remove_old_answers(pool: asyncpg.Pool, now: datetime, limit: int) -> int:
    """Remove up to ``limit`` answers that are older than ``KEPT_FOR``; return how many."""
    rows = await pool.fetch(
        """
        DELETE FROM idempotency_keys WHERE id IN (
            SELECT id FROM idempotency_keys WHERE created_at <= $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING id
        """,
        now - KEPT_FOR,
        limit,
    )
    return len(rows)
