"""Creates users from rows: rows are validated one by one, and users are created batch by batch.

A batch is one transaction: its users, and the messages that they need before the planner runs again. Committed batches
stay; if the same file is imported again, their users are unchanged. The next batch is parsed while the database works
on the one before.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import FileIO
from typing import Final
from uuid import UUID

from birthday.clock import Clock
from birthday.core.occasion import month_days_on
from birthday.core.origin import Origin, parse_origin
from birthday.core.plan import messages_since, planned_messages
from birthday.core.user import parse_profile
from birthday.errors import FieldError, InvalidInputError
from birthday.operations.transfer.records import Rejected, Row, UserRecords, format_of
from birthday.operations.transfer.source import LineSplitter, read_chunks
from birthday.store.changes import IMPORTED, USER, Actor, Change, record_changes
from birthday.store.transfer import (
    Clash,
    StagedMessage,
    StagedUser,
    create_staged,
    find_clashes,
    rehearse_staged,
    stage_users,
    staging,
)
from birthday.store.users import Connection, Planning

BATCH_ROWS: Final = 5000
BATCH_BYTES: Final = 4 * 1024 * 1024
"""A batch of unusually long rows ends at this size, so that it fits in memory."""

_NOT_OVER: Final = timedelta(hours=60)
_NOT_DUE: Final = timedelta(hours=24)
"""How far the date of a birthday that may need a message lies from now, in UTC.

Behind now: 12 hours of a zone's offset, the day itself, and a day that the zone skipped. Ahead, beyond the horizon: 14
hours of a zone's offset, and the overlap with the planner.
"""


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """Counts the rows of the committed batches. Each row read is created, unchanged or rejected."""

    created: int = 0
    unchanged: int = 0
    rejected: int = 0
    messages_scheduled: int = 0

    @property
    def read(self) -> int:
        """How many rows there were."""
        return self.created + self.unchanged + self.rejected


Reject = Callable[[Rejected], None]
Progress = Callable[[ImportSummary, int], None]
"""Called after each batch with the counts of all rows so far, and how many bytes of the source were read."""


async def import_users(  # noqa: PLR0913 - what it needs, and whom it tells
    source: FileIO,
    connection: Connection,
    clock: Clock,
    planning: Planning,
    by: Actor,
    reject: Reject,
    progress: Progress,
    *,
    dry_run: bool = False,
    catch_up: timedelta | None = None,
) -> ImportSummary:
    """Create a user for each row of ``source``; hand each invalid row, in order of line, to ``reject``.

    ``connection`` must not be used for anything else meanwhile. If a row agrees with the user who has its e-mail
    address, it is unchanged. If it differs, it is rejected, because an import creates users and changes none. With
    ``dry_run`` the result is the same and the database stays as it is. With ``catch_up``, rows have ids: former users
    come back as they were, with the messages that were due within that window and may have been lost. On cancellation,
    the running batch ends first and is reported to ``progress``.

    Raises:
        InvalidInputError: if the file as a whole cannot be read; nothing was imported then.
        UnavailableError: if the file cannot be read to its end. Batches reported to ``progress`` stay.
    """
    target = _Target(connection, clock, planning, by, reject, progress, dry_run=dry_run, catch_up=catch_up)
    running: asyncio.Task[None] | None = None
    async with staging(connection), aclosing(_read_batches(source, clock, with_ids=catch_up is not None)) as batches:
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
    accepted: list[StagedUser] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    lines_by_id: dict[UUID, int] = field(default_factory=dict)
    bytes_read: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes_read = self.start

    @property
    def full(self) -> bool:
        return len(self.accepted) + len(self.rejected) >= BATCH_ROWS or self.bytes_read - self.start >= BATCH_BYTES

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


async def _read_batches(source: FileIO, clock: Clock, *, with_ids: bool) -> AsyncGenerator[_Batch, None]:
    lines, records = LineSplitter(), UserRecords(format_of(str(source.name)), with_ids=with_ids)
    batch = _Batch(start=0)
    async with aclosing(read_chunks(source)) as chunks:
        async for chunk in chunks:
            batch.bytes_read += len(chunk)
            batch.add(records.read(lines.feed(chunk), last=False), clock.now())
            if batch.full:
                yield batch
                batch = _Batch(start=batch.bytes_read)
    batch.add(records.read(lines.finish(), last=True), clock.now())
    yield batch


class _Target:
    """Stores batches, and counts the results."""

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        planning: Planning,
        by: Actor,
        reject: Reject,
        progress: Progress,
        *,
        dry_run: bool,
        catch_up: timedelta | None,
    ) -> None:
        self.summary = ImportSummary()
        self._connection = connection
        self._clock = clock
        self._planning = planning
        self._by = by
        self._reject = reject
        self._progress = progress
        self._dry_run = dry_run
        self._catch_up = catch_up

    async def store(self, batch: _Batch) -> None:
        """Create the users of a batch in one transaction, then report and count the results."""
        # Taken now, not at the start: otherwise a long import would leave a gap before the planner's watermark.
        now = self._clock.now()
        if self._catch_up is None:
            messages = _plan(batch.accepted, now, self._planning)
        else:
            messages = _plan_again(batch.accepted, now, self._planning, self._catch_up)
        # Read committed, because the search for clashes must see users that others have just created.
        async with self._connection.transaction(isolation="read_committed", readonly=self._dry_run):
            await stage_users(self._connection, batch.accepted)
            if self._dry_run:
                stored = await rehearse_staged(self._connection, messages)
            else:
                stored = await create_staged(self._connection, messages, now)
                created = len(batch.accepted) - len(stored.skipped_lines)
                await record_changes(self._connection, _changes(self._by, created), now)
            clashes = await find_clashes(self._connection, stored.skipped_lines) if stored.skipped_lines else []
        rejected = [*batch.rejected, *(Rejected(clash.line, (_explain(clash),)) for clash in clashes)]
        for each in sorted(rejected, key=lambda one: one.line):
            self._reject(each)
        self.summary = ImportSummary(
            created=self.summary.created + len(batch.accepted) - len(stored.skipped_lines),
            unchanged=self.summary.unchanged + len(stored.skipped_lines) - len(clashes),
            rejected=self.summary.rejected + len(rejected),
            messages_scheduled=self.summary.messages_scheduled + stored.messages,
        )
        self._progress(self.summary, batch.bytes_read)


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


def _explain(clash: Clash) -> FieldError:
    if clash.deleted:
        return FieldError("/id", "the user with this id was deleted; deleted users do not come back")
    if clash.shared == "externalId":
        other = "another user" if clash.first_line is None else f"line {clash.first_line}"
        detail = f"{other} has the externalId {clash.external_id} too; one user for each externalId is accepted"
        return FieldError("/externalId", detail)
    if clash.shared == "id":
        detail = (
            f"the user with this id differs in {', '.join(clash.differing)}; an import creates users and changes none"
        )
        return FieldError("/id", detail)
    if not clash.differing:
        detail = f"the user who had {clash.email} was deleted while this was read; the same line is accepted now"
    elif clash.first_line is not None:
        detail = (
            f"line {clash.first_line} has {clash.email} too; fields differ: {', '.join(clash.differing)}; "
            "one user for each address is accepted"
        )
    else:
        detail = (
            f"another user has {clash.email}; fields differ: {', '.join(clash.differing)}; "
            "an import creates users and changes none"
        )
    return FieldError("/email", detail)
