"""Users in any number, as a real user base has them: ``python -m benchmarks.population --users 5000000``.

Every zone that tzdata knows is in use, most people live in a few of them, some have a fixed offset. Birthdays are those
of people of working age; one in forty is 1 January, which is what a form suggests to those who do not care. The rows go
in with COPY. The same seed makes the same users.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import NamedTuple
from uuid import UUID
from zoneinfo import available_timezones

import asyncpg

from birthday.store.connection import Connection

BATCH = 50_000
NEW_YEAR_SHARE = 0.025
_FIRST_BIRTH = date(1945, 1, 1)
_BIRTH_DAYS = (date(2010, 1, 1) - _FIRST_BIRTH).days
_CROWDED = {
    "Asia/Kolkata": 180,
    "Asia/Shanghai": 160,
    "America/New_York": 90,
    "America/Sao_Paulo": 70,
    "Europe/Berlin": 60,
    "Asia/Jakarta": 60,
    "America/Chicago": 50,
    "America/Los_Angeles": 50,
    "Europe/London": 50,
    "Africa/Lagos": 40,
    "Asia/Tokyo": 40,
    "UTC": 20,
    "UTC+05:30": 10,
    "UTC+07:00": 10,
}
COLUMNS = (
    "id",
    "first_name",
    "last_name",
    "email",
    "date_of_birth",
    "timezone",
    "schedule_from",
    "created_at",
    "updated_at",
)


class Person(NamedTuple):
    """One row of ``users``, without what the database computes; in the order of ``COLUMNS``."""

    id: UUID
    first_name: str
    last_name: str
    email: str
    date_of_birth: date
    timezone: str
    schedule_from: datetime
    created_at: datetime
    updated_at: datetime


def people(count: int, created_at: datetime, seed: int = 1) -> Iterator[Person]:
    """Yield made-up users. Ids ascend with time, as those of users who come one after the other do."""
    random = Random(seed)  # noqa: S311 - test data, the same in each run
    zones = sorted(zone for zone in available_timezones() if "/" in zone or zone == "UTC")
    zones += sorted(set(_CROWDED) - set(zones))
    weights = [_CROWDED.get(zone, 0.5) for zone in zones]
    milliseconds = int(created_at.timestamp() * 1000)
    for start in range(0, count, BATCH):
        living = random.choices(zones, weights, k=min(BATCH, count - start))
        for number, zone in enumerate(living, start):
            born = _FIRST_BIRTH + timedelta(days=random.randrange(_BIRTH_DAYS))
            if random.random() < NEW_YEAR_SHARE:
                born = born.replace(month=1, day=1)
            bits = (milliseconds + number // 1000) << 80 | 7 << 76 | 2 << 62 | random.getrandbits(62)
            email = f"person{number}.{seed}@example.com"
            yield Person(
                UUID(int=bits), "Ada", f"Lovelace{number}", email, born, zone, created_at, created_at, created_at
            )


async def populate(connection: Connection, count: int, created_at: datetime, seed: int = 1) -> None:
    """Add ``count`` users with COPY, batch by batch, and refresh the statistics."""
    crowd = people(count, created_at, seed)
    for start in range(0, count, BATCH):
        batch = [next(crowd) for _ in range(min(BATCH, count - start))]
        await connection.copy_records_to_table("users", records=batch, columns=COLUMNS, timeout=None)
    await connection.execute("VACUUM (ANALYZE) users", timeout=None)


async def _main(url: str, count: int, seed: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        started = time.perf_counter()
        await populate(connection, count, datetime.now(UTC) - timedelta(days=1), seed)
        seconds = time.perf_counter() - started
        print(f"{count:,} users in {seconds:.1f} s, {count / seconds:,.0f} a second")
    finally:
        await connection.close()


def main(arguments: list[str]) -> None:
    """Add users to a database that is migrated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.population", description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="users of another seed have other e-mail addresses")
    parser.add_argument("--database", required=True, help="postgresql://..., which must be migrated")
    options = parser.parse_args(arguments)
    asyncio.run(_main(options.database, options.users, options.seed))


if __name__ == "__main__":
    main(sys.argv[1:])
