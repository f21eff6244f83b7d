"""Made-up users in any number: the same for the same seed, spread over names, years and zones as real ones are."""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg
import orjson

from birthday.core.user import Profile
from birthday.store.changes import Actor
from birthday.store.creation import create_users, plan_user
from birthday.store.users import Planning, User

TESTER = Actor("tester")
"""Who changes things in tests."""

CSV_HEADER = "firstName,lastName,email,dateOfBirth,timezone,timezoneOffset"

_FIRST_NAMES = (
    "Ada",
    "Alan",
    "Ana",
    "Anders",
    "Chidi",
    "Chloé",
    "Dmitri",
    "Elif",
    "Fatima",
    "Giulia",
    "Hana",
    "Ingrid",
    "Jamal",
    "João",
    "José",
    "Kofi",
    "Léa",
    "Mei",
    "Nguyễn",
    "Olga",
    "Rahul",
    "Saoirse",
    "Tariq",
    "Yuki",
    "Øystein",
    "美咲",
)
_LAST_NAMES = (
    "Adeyemi",
    "Bianchi",
    "Castro",
    "Chen",
    "Dubois",
    "García",
    "Gupta",
    "Haddad",
    "Hansen",
    "Ivanova",
    "Kaya",
    "Kim",
    "Kumar",
    "Lovelace",
    "Mensah",
    "Müller",
    "Novák",
    "O'Brien",
    "Patel",
    "Pérez",
    "Silva",
    "Singh",
    "Smith",
    "Tanaka",
    "Tran",
    "Turing",
    "Wang",
    "Wójcik",
    "Zhang",
    "山田",
)
_ZONES = (
    "Africa/Lagos",
    "Africa/Cairo",
    "America/Argentina/Buenos_Aires",
    "America/Chicago",
    "America/Los_Angeles",
    "America/New_York",
    "America/Sao_Paulo",
    "Asia/Jakarta",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Shanghai",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/London",
    "Pacific/Apia",
    "Pacific/Auckland",
    "UTC",
    "UTC+05:30",
    "UTC+07:00",
    "UTC-03:30",
)
_FIRST_BIRTH = date(1935, 1, 1)
_BIRTH_DAYS = (date(2011, 1, 1) - _FIRST_BIRTH).days


def make_profiles(count: int, seed: int = 1) -> Iterator[Profile]:
    """Yield ``count`` users, no two with the same e-mail address within a seed. One in fifty is born on 1 January."""
    random = Random(seed)  # noqa: S311 - Test data, the same in each run.
    for number in range(count):
        first_name, last_name = random.choice(_FIRST_NAMES), random.choice(_LAST_NAMES)
        born = _FIRST_BIRTH + timedelta(days=random.randrange(_BIRTH_DAYS))
        if number % 50 == 0:
            born = born.replace(month=1, day=1)
        email = f"user{number}.{random.randrange(1000)}@seed{seed}.example.com"
        yield Profile(first_name, last_name, email, born, random.choice(_ZONES))


def csv_line(profile: Profile) -> str:
    """Return a user as a line of CSV below ``CSV_HEADER``, without a line feed. No value may need quotes."""
    return ",".join("" if value is None else str(value) for value in profile.as_input().values())


def write_csv(path: Path, profiles: Iterable[Profile]) -> Path:
    """Write users as the CSV file that an import takes."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{CSV_HEADER}\n")
        file.writelines(f"{csv_line(profile)}\n" for profile in profiles)
    return path


def write_ndjson(path: Path, profiles: Iterable[Profile]) -> Path:
    """Write users as the NDJSON file that an import takes."""
    with path.open("wb") as file:
        file.writelines(orjson.dumps(profile.as_input(), option=orjson.OPT_APPEND_NEWLINE) for profile in profiles)
    return path


async def create_user(
    pool: asyncpg.Pool, user_id: UUID, profile: Profile, now: datetime, planning: Planning
) -> tuple[User, int]:
    """Store one user as the API does; return it, and how many messages were materialised."""
    new = plan_user(user_id, profile, now, planning, TESTER)
    [outcome] = await create_users(pool, [new])
    if not isinstance(outcome, User):
        raise outcome
    return outcome, len(new.messages)
