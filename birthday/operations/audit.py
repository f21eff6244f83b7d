"""Audits a range, one day of birthdays at a time, so that memory does not grow with the range or the users."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from birthday.core.audit import (
    BROKEN,
    OF_MESSAGES,
    Finding,
    Memory,
    every_zone,
    judge,
    judge_instant,
    occasions_under_way,
)
from birthday.core.message import Status
from birthday.core.occasion import ZoneOccasion
from birthday.core.plan import OVERLAP, Basis
from birthday.core.zone import data_version
from birthday.store.audit import Population, read_birthdays, read_noted_rules, read_populations, read_repeats
from birthday.store.connection import borrow
from birthday.store.users import Planning

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that the audit found. ``message_id`` and ``status`` are those of the message, if there is one.

    ``repeats`` is set for a duplicate: the message that came first, unless retention has removed it. ``sent_at`` is set
    for a message that was sent at the wrong time, or late.
    """

    finding: Finding
    user_id: UUID
    message_type: str
    year: int
    due_at: datetime
    message_id: UUID | None
    status: Status | None
    repeats: UUID | None = None
    sent_at: datetime | None = None


Report = Callable[[Item], None]


def _ignore(_item: Item) -> None:
    """Ignore single findings."""


@dataclass(frozen=True, slots=True)
class Audit:
    """How often each finding was made, and what a reader should know about these figures."""

    counts: Counter[Finding] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def expected(self) -> int:
        """How many birthdays were due. Each has one finding; further findings about messages do not count here."""
        return self.counts.total() - sum(self.counts[finding] for finding in OF_MESSAGES)

    @property
    def broken(self) -> bool:
        """Say whether a birthday was lost, greeted twice, or greeted at the wrong time."""
        return self.has_any(BROKEN)

    def has_any(self, findings: Collection[Finding]) -> bool:
        """Say whether one of these findings was made."""
        return any(self.counts[finding] for finding in findings)


@dataclass(frozen=True, slots=True)
class Auditor:
    """Audits one installation. ``planning`` and ``retention`` are those that its processes run with."""

    pool: asyncpg.Pool
    planning: Planning
    retention: timedelta

    async def audit(self, from_at: datetime, to_at: datetime, now: datetime, report: Report = _ignore) -> Audit:
        """Audit what is due in ``[from_at, to_at)``, up to ``now``; hand each finding to ``report``.

        Each day is read by a statement of its own: nothing is locked, and no snapshot is held for long.
        """
        return await self._audit(from_at, from_at, to_at, now, report)

    async def audit_with_notes(
        self, from_at: datetime, to_at: datetime, now: datetime, report: Report = _ignore
    ) -> Audit:
        """Audit a range of any length like ``audit``, and note what the figures cannot show. Reads all users once."""
        async with borrow(self.pool, None) as connection:
            populations = await read_populations(connection)
            noted, _ = await read_noted_rules(connection)
        # No birthday was due before the first user was known.
        known_from = min((population.since for population in populations), default=to_at)
        audit = await self._audit(from_at, max(from_at, known_from), to_at, now, report)
        audit.notes.extend(_notes(populations, from_at, self._memory(now)))
        if noted is not None and noted != self._rules:
            audit.notes.append(
                f"messages are planned by '{noted}' (SEND_AT, LEAP_DAY, time-zone data), and this audit goes by "
                f"'{self._rules}': whether they were planned for the right instant is not looked at"
            )
        return audit

    @property
    def _rules(self) -> str:
        return str(Basis(self.planning.rules, data_version()))

    async def _rules_since(self) -> datetime | None:
        """Return since when messages are planned by the rules of this audit; None if other rules are in use."""
        async with borrow(self.pool) as connection:
            noted, since = await read_noted_rules(connection)
        return since if noted == self._rules else None

    def _memory(self, now: datetime) -> Memory:
        return Memory(now - self.retention, self.planning.horizon + OVERLAP)

    async def _audit(
        self, from_at: datetime, first_at: datetime, to_at: datetime, now: datetime, report: Report
    ) -> Audit:
        audit = Audit()
        memory = self._memory(now)
        rules_since = await self._rules_since()

        def add(item: Item) -> None:
            audit.counts[item.finding] += 1
            report(item)

        day = first_at
        while day < min(to_at, now):
            next_day = min(day + _DAY, to_at, now)
            await self._audit_day(day, next_day, _Bounds(memory, rules_since, now), add)
            day = next_day
        async with borrow(self.pool, None) as connection, connection.transaction(readonly=True):
            async for one in read_repeats(connection, from_at, to_at, memory.kept_from):
                of = (one.user_id, one.message_type, one.year, one.scheduled_at, one.id, one.status)
                add(Item(Finding.DUPLICATE, *of, repeats=one.first_id))
        return audit

    async def _audit_day(self, from_at: datetime, to_at: datetime, bounds: "_Bounds", add: Report) -> None:
        occasions: list[ZoneOccasion] = []
        for some in occasions_under_way(from_at, to_at, self.planning.rules):
            occasions += some
            # Hundreds of zones take many milliseconds, so let other tasks run in between.
            await asyncio.sleep(0)
        async with borrow(self.pool, None) as connection, connection.transaction(readonly=True):
            async for one in read_birthdays(connection, occasions, from_at, to_at):
                facts, answer = one.facts, one.facts.answer
                finding = judge(facts, bounds.memory, bounds.now)
                if finding is None:
                    continue
                status = answer.status if answer else None
                of = (one.user_id, one.message_type, facts.year, facts.due_at, one.message_id, status)
                add(Item(finding, *of))
                timing = judge_instant(facts, bounds.rules_since)
                if timing is not None and answer is not None:
                    sent_at = answer.sent_at or answer.delivered_at
                    add(Item(timing, *of, sent_at=sent_at))


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What is the same for all days of one audit."""

    memory: Memory
    rules_since: datetime | None
    now: datetime


def _notes(populations: Sequence[Population], from_at: datetime, memory: Memory) -> Iterator[str]:
    if from_at < memory.kept_from + memory.lead:
        yield (
            f"retention removes finished messages that were created before {memory.kept_from:%Y-%m-%d %H:%M} UTC, and "
            "users deleted before then; archived says that there was a message, and not any more what came of it"
        )
    known = frozenset(every_zone())
    for population in populations:
        if population.live_users and population.zone not in known:
            yield (
                f"'{population.zone}' is not a time zone: nobody can say when the birthdays of its "
                f"{population.live_users} users are due"
            )
