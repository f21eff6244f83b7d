"""Statements for many rows, of which the database may refuse some: find those, and execute the statement for the rest.

If the error is an outage, it is raised, and the caller waits. Any other error belongs to a row (bad data, a constraint,
a trigger), unless the statement fails even without rows: then a column or a privilege is missing, and no row is at
fault.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

import asyncpg

from birthday.errors import UnavailableError
from birthday.store.connection import DATABASE_ERRORS, Connection, is_outage, stay_cancelled
from birthday.telemetry.errors import error_text

Row = TypeVar("Row")
Result = TypeVar("Result")


class Sifting(Generic[Row, Result]):
    """Runs a statement for all rows at once. If it is refused, halves the rows until each refused row is found."""

    def __init__(
        self, what: str, rows: Sequence[Row], statement: Callable[[Sequence[Row]], Awaitable[Sequence[Result]]]
    ) -> None:
        """Take a ``statement`` that is safe to repeat. ``what`` names it in errors."""
        self.results: list[Result] = []
        self.refused: list[tuple[Row, Exception]] = []
        """Rows that the database refuses, each with its error."""
        self._what = what
        self._waiting = [rows] if rows else []
        self._statement = statement

    async def run(self) -> None:
        """Run the statement for every row. After an outage, call this again: it goes on where it stopped.

        Raises:
            UnavailableError: if the statement fails even without rows.
            DATABASE_ERRORS: if the database is away.
        """
        while self._waiting:
            rows = self._waiting[-1]
            try:
                self.results += await self._statement(rows)
            except DATABASE_ERRORS as error:
                stay_cancelled()
                if is_outage(error):
                    raise
                await self._make_sure_that_it_is_the_rows()
                self._waiting.pop()
                middle = len(rows) // 2
                if middle:
                    self._waiting += [rows[middle:], rows[:middle]]
                else:
                    self.refused.append((rows[0], error))
            else:
                self._waiting.pop()

    async def _make_sure_that_it_is_the_rows(self) -> None:
        """Run the statement without rows, because PostgreSQL checks columns and privileges even then."""
        try:
            await self._statement(())
        except DATABASE_ERRORS as error:
            stay_cancelled()
            if is_outage(error):
                raise
            raise UnavailableError("database", f"the database refuses to {self._what}: {error_text(error)}") from error


def refusal_text(error: Exception) -> str:
    """Return the reason to store for a message that the database refused: the SQLSTATE, without data."""
    return f"the database refused it: {error_text(error)}"


async def fail_refused(
    connection: Connection | asyncpg.Pool, message_id: UUID, now: datetime, error: Exception
) -> str | None:
    """Fail a message that the database refuses to update, and return its type; None if it is not failed.

    If a worker has claimed the message, it is left to that worker. If a dead worker was sending it, it may have
    arrived, and that is stored.
    """
    message_type: str | None = await connection.fetchval(
        """
        UPDATE message_logs
        SET status = 'failed', updated_at = $2, lease_until = NULL, next_attempt_at = NULL,
            may_have_arrived = may_have_arrived OR status = 'sending',
            error_type = 'permanent_failure', error_detail = $3
        WHERE id = $1 AND (status IN ('scheduled', 'queued', 'retrying')
                           OR status = 'sending' AND lease_until < clock_timestamp())
        RETURNING message_type
        """,
        message_id,
        now,
        refusal_text(error),
    )
    return message_type
