"""Creates users from rows, or also changes those who are there: rows are validated one by one, and stored in batches.

A batch is one transaction: its users, and the messages that they need before the planner runs again. Committed batches
stay; if the same file is imported again, their users are unchanged. The next batch is parsed while the database works
on the one before.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from io import FileIO
from typing import Final
from uuid import UUID

from asyncpg import DeadlockDetectedError

from birthday.clock import Clock
from birthday.core.occasion import month_days_on
from birthday.core.origin import Origin, parse_origin
from birthday.core.plan import messages_since, planned_messages
from birthday.core.user import parse_profile
from birthday.errors import FieldError, InvalidInputError
from birthday.operations.transfer.changing import Outcome, Result, change_users, leave
from birthday.operations.transfer.records import Format, Rejected, Row, UserRecords, format_of
from birthday.operations.transfer.source import LineSplitter, read_chunks
from birthday.store.changes import IMPORTED, USER, Actor, Change, record_changes
from birthday.store.connection import Connection, rehearsal
from birthday.store.sessions import is_shared
from birthday.store.transfer import (
    Clash,
    StagedMessage,
    StagedUser,
    StoredBatch,
    create_staged,
    find_clashes,
    hold_staged,
    rehearse_staged,
    stage_users,
    staging,
)
from birthday.store.users import Planning, Replanned

BATCH_ROWS: Final = 5000
BATCH_BYTES: Final = 4 * 1024 * 1024
"""A batch of unusually long rows ends at this size, so that it fits in memory."""

_NOT_OVER: Final = timedelta(hours=60)
_NOT_DUE: Final = timedelta(hours=24)
"""How far the date of a birthday that may need a message lies from now, in UTC.

Behind now: 12 hours of a zone's offset, the day itself, and a day that the zone skipped. Ahead, beyond the horizon: 14
hours of a zone's offset, and the overlap with the planner.
"""


_RETRIES: Final = 2
_ISOLATION: Final = "read_committed"
"""Because the search for clashes must see users that others have just created."""


class Mode(StrEnum):
    """What an import does with a row whose user exists and differs: CREATE rejects it, UPSERT changes the user."""

    CREATE = "create"
    UPSERT = "upsert"


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """Counts the rows of the committed batches. Each row read is created, updated, unchanged or rejected."""

    created: int = 0
    unchanged: int = 0
    rejected: int = 0
    messages_scheduled: int = 0
    updated: int = 0
    messages_cancelled: int = 0

    @property
    def read(self) -> int:
        """How many rows there were."""
        return self.created + self.updated + self.unchanged + self.rejected


Reject = Callable[[Rejected], None]
Progress = Callable[[ImportSummary, int], None]
"""Called after each batch with the counts of all rows so far, and how many bytes of the source were read."""
Tell = Callable[[Sequence[Result], ImportSummary, int], Awaitable[None]]
"""As ``Progress``, with the results of the batch in order of line. The next batch waits until it returns."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import.

    With ``dry_run`` the result is the same and the database stays as it is. With ``catch_up``, rows have ids: former
    users come back as they were, with the messages that were due within that window and may have been lost.
    ``each_row`` tells of each row, not only of those that are rejected. A batch has about ``batch_rows``.
    ``dry_run_limit`` is how long a dry run may take that is one transaction.
    """

    mode: Mode = Mode.CREATE
    dry_run: bool = False
    catch_up: timedelta | None = None
    each_row: bool = False
    batch_rows: int = BATCH_ROWS
    dry_run_limit: timedelta = timedelta(minutes=1)


CREATION: Final = ImportOptions()


async def import_users(
    source: FileIO,
    connection: Connection,
    clock: Clock,
    planning: Planning,
    by: Actor,
    reject: Reject,
    progress: Progress,
    options: ImportOptions = CREATION,
) -> ImportSummary:
    """Create a user for each row of ``source``; hand each invalid row, in order of line, to ``reject``.

    ``connection`` must not be used for anything else meanwhile. If a row agrees with the user who has its e-mail
    address, it is unchanged. If it differs, the mode of ``options`` decides. On cancellation, the running batch ends
    first and is reported to ``progress``.

    Raises:
        InvalidInputError: if the file as a whole cannot be read; nothing was imported then.
        UnavailableError: if the file cannot be read to its end. Batches reported to ``progress`` stay.
    """

    async def tell(results: Sequence[Result], summary: ImportSummary, bytes_read: int) -> None:
        for result in results:
            if result.errors:
                reject(Rejected(result.line, result.errors))
        progress(summary, bytes_read)

    target = Target(connection, clock, planning, by, tell, options)
    return await import_chunks(read_chunks(source), format_of(str(source.name)), target)


async def import_chunks(
    chunks: AsyncGenerator[bytes, None], file_format: Format | None, target: "Target"
) -> ImportSummary:
    """Do what ``import_users`` does with chunks of bytes. An empty chunk says that no more will come for a while.

    If ``chunks`` or ``tell`` raises an error, the running batch ends first, and rows that were read only are dropped.
    """
    running: asyncio.Task[None] | None = None
    async with (
        target.staging_for_all(),
        aclosing(_read_batches(chunks, file_format, target.clock, target.options)) as batches,
    ):
        try:
            async for batch in batches:
                if running:
                    await asyncio.shield(running)
                running = asyncio.create_task(target.store(batch))
            if running:
                await asyncio.shield(running)
        finally:
            if running:
                await running
    return target.summary


@dataclass(slots=True)
class _Batch:
    """Rows on their way to the database. ``bytes_read`` counts from the start of the source to the end of the batch."""

    start: int
    rows: int
    accepted: list[StagedUser] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    lines_by_id: dict[UUID, int] = field(default_factory=dict)
    bytes_read: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes_read = self.start

    @property
    def full(self) -> bool:
        return self.count >= self.rows or self.bytes_read - self.start >= BATCH_BYTES

    @property
    def count(self) -> int:
        return len(self.accepted) + len(self.rejected)

    def add(self, rows: Iterable[Row | Rejected], now: datetime) -> None:
        for row in rows:
            if isinstance(row, Rejected):
                self.rejected.append(row)
                continue
            try:
                origin = None if row.origin is None else self._take_id(row.line, parse_origin(row.origin, now))
                self.accepted.append(StagedUser(row.line, parse_profile(row.data, now), origin))
            except InvalidInputError as error:
                self.rejected.append(Rejected(row.line, error.fields))

    def _take_id(self, line: int, origin: Origin) -> Origin:
        """Allow an id on one line of the batch only, because the database tells stored rows apart by id."""
        first = self.lines_by_id.setdefault(origin.id, line)
        if first != line:
            raise InvalidInputError(
                FieldError("/id", f"line {first} has {origin.id} too; one user for each id is accepted")
            )
        return origin


async def _read_batches(
    chunks: AsyncGenerator[bytes, None], file_format: Format | None, clock: Clock, options: ImportOptions
) -> AsyncGenerator[_Batch, None]:
    lines, records = LineSplitter(), UserRecords(file_format, with_ids=options.catch_up is not None)
    batch = _Batch(0, options.batch_rows)
    async with aclosing(chunks):
        async for chunk in chunks:
            batch.bytes_read += len(chunk)
            batch.add(records.read(lines.feed(chunk), last=False), clock.now())
            if batch.full or (not chunk and batch.count):
                yield batch
                batch = _Batch(batch.bytes_read, options.batch_rows)
    batch.add(records.read(lines.finish(), last=True), clock.now())
    yield batch


@dataclass(slots=True)
class Target:
    """Stores batches, and counts the results in ``summary``. Nothing else may use ``connection`` meanwhile."""

    connection: Connection
    clock: Clock
    planning: Planning
    by: Actor
    tell: Tell
    options: ImportOptions
    summary: ImportSummary = field(default_factory=ImportSummary)

    @asynccontextmanager
    async def staging_for_all(self) -> AsyncIterator[None]:
        """Keep the tables of the import for all batches, if the connection is a session, which can keep them.

        Otherwise each batch makes its own within its transaction. A dry run, whose batches see those before them, is
        then one transaction, which is taken back. Its time is limited, because the feed of outcomes waits for it.

        Raises:
            InvalidInputError: if a dry run that is one transaction takes too long.
        """
        if not is_shared(self.connection):
            async with staging(self.connection):
                yield
        elif self.options.dry_run:
            async with (
                _limited(self.options.dry_run_limit),
                rehearsal(self.connection, isolation=_ISOLATION),
                staging(self.connection),
            ):
                yield
        else:
            yield

    def _staging_for_batch(self) -> AbstractAsyncContextManager[None]:
        is_missing = is_shared(self.connection) and not self.options.dry_run
        return staging(self.connection) if is_missing else nullcontext()

    async def store(self, batch: _Batch) -> None:
        """Create the users of a batch in one transaction, then report and count the results."""
        stored, results, replanned = await self._store(batch.accepted)
        skipped = len(stored.skipped_lines)
        updated = sum(result.outcome is Outcome.UPDATED for result in results)
        conflicts = sum(result.outcome is Outcome.CONFLICT for result in results)
        self.summary = ImportSummary(
            created=self.summary.created + len(batch.accepted) - skipped,
            unchanged=self.summary.unchanged + skipped - updated - conflicts,
            rejected=self.summary.rejected + len(batch.rejected) + conflicts,
            messages_scheduled=self.summary.messages_scheduled + stored.messages + replanned.planned,
            updated=self.summary.updated + updated,
            messages_cancelled=self.summary.messages_cancelled + replanned.cancelled,
        )
        results += [Result(each.line, Outcome.INVALID, None, each.errors) for each in batch.rejected]
        if self.options.each_row:
            results += _created(batch.accepted, stored)
        await self.tell(sorted(results, key=lambda one: one.line), self.summary, batch.bytes_read)

    async def _store(self, users: Sequence[StagedUser]) -> tuple[StoredBatch, list[Result], Replanned]:
        for _ in range(_RETRIES):
            with suppress(DeadlockDetectedError):
                # Another transaction made it fail, so it was undone as a whole.
                return await self._store_once(users)
        return await self._store_once(users)

    async def _store_once(self, users: Sequence[StagedUser]) -> tuple[StoredBatch, list[Result], Replanned]:
        """Return what was stored, and the results of the rows that created nobody, as far as they are told."""
        # Taken now, not at the start: otherwise a long import would leave a gap before the planner's watermark.
        now, options = self.clock.now(), self.options
        if options.catch_up is None:
            messages = _plan(users, now, self.planning)
        else:
            messages = _plan_again(users, now, self.planning, options.catch_up)
        upsert = options.mode is Mode.UPSERT
        async with (
            self.connection.transaction(isolation=_ISOLATION, readonly=options.dry_run and not upsert),
            self._staging_for_batch(),
        ):
            await stage_users(self.connection, users)
            if options.dry_run:
                stored = await rehearse_staged(self.connection, messages)
            else:
                if upsert:
                    await hold_staged(self.connection)
                stored = await create_staged(self.connection, messages, now, with_ids=options.each_row)
                created = len(users) - len(stored.skipped_lines)
                await record_changes(self.connection, _changes(self.by, created), now)
            clashes: list[Clash] = []
            if stored.skipped_lines:
                # An equal row may differ once an earlier one has changed its user.
                with_equal = options.each_row or upsert
                clashes = await find_clashes(
                    self.connection, stored.skipped_lines, external_id_first=upsert, with_equal=with_equal
                )
            if upsert:
                given = {user.line: user.profile for user in users}
                return stored, *await change_users(
                    self.connection, self.planning, self.by, given, clashes, now, dry_run=options.dry_run
                )
        return stored, [leave(clash) for clash in clashes], Replanned()


@asynccontextmanager
async def _limited(limit: timedelta) -> AsyncIterator[None]:
    timeout = asyncio.timeout(limit.total_seconds())
    try:
        async with timeout:
            yield
    except TimeoutError:
        if not timeout.expired():
            raise
        reason = (
            f"a dry run behind a pooler in transaction mode may take {limit.total_seconds():g} s: check fewer rows at "
            "a time, or set DATABASE_DIRECT_URL"
        )
        raise InvalidInputError(FieldError("", reason)) from None


def _created(users: Sequence[StagedUser], stored: StoredBatch) -> list[Result]:
    """Return the results of the rows that created somebody; a dry run has no ids."""
    ids = dict(zip(stored.created_lines, stored.created_ids, strict=True))
    skipped = set(stored.skipped_lines)
    return [Result(user.line, Outcome.CREATED, ids.get(user.line)) for user in users if user.line not in skipped]


def _changes(by: Actor, created: int) -> list[Change]:
    """Return one change for a whole batch. Its users are those that were created at its instant."""
    return [by.change(IMPORTED, USER, "", after={"users": created})] if created else []


def _plan(users: Sequence[StagedUser], now: datetime, planning: Planning) -> list[StagedMessage]:
    near = month_days_near(now, planning)
    return [
        StagedMessage(line, message)
        for line, profile, _ in users
        if not near.isdisjoint(day.month * 100 + day.day for _, day in profile.dates())
        for message in planned_messages(profile, now, planning.horizon, planning.rules)
    ]


def _plan_again(
    users: Sequence[StagedUser], now: datetime, planning: Planning, catch_up: timedelta
) -> list[StagedMessage]:
    return [
        StagedMessage(line, message)
        for line, profile, origin in users
        if origin is not None
        for message in messages_since(profile, origin, now - catch_up, now, planning.horizon, planning.rules)
    ]


def month_days_near(now: datetime, planning: Planning) -> frozenset[int]:
    """Return every ``month * 100 + day`` of a yearly date that may need a message, and a few that do not.

    Users with other dates need none, in any zone. For them ``planned_messages`` need not be called, which
    takes several times as long as all other work on a row.
    """
    first = (now - _NOT_OVER).date()
    last = (now + planning.horizon + _NOT_DUE).date()
    days = (first + timedelta(days=offset) for offset in range((last - first).days + 1))
    return frozenset(month_day for day in days for month_day in month_days_on(day, planning.rules.leap_day))
