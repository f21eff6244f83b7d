"""Which template a message gets: by its type, and the locale of its user."""

from datetime import UTC, datetime

import asyncpg
import pytest

from birthday.store.templates import read_types

NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def _activate(pool: asyncpg.Pool, *templates: tuple[str, str, int]) -> None:
    await pool.executemany(
        "INSERT INTO active_templates VALUES ($1, $2, $3, $4, 'test')", [(*template, NOW) for template in templates]
    )


async def _choose(pool: asyncpg.Pool, message_type: str, locale: str | None) -> tuple[object, ...] | None:
    row = await pool.fetchrow("SELECT * FROM choose_template($1, $2)", message_type, locale)
    return None if row is None else tuple(row)


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        (None, ("birthday", "default", 7)),
        ("de", ("birthday", "default", 7)),
        ("pt", ("birthday.pt", "pt", 2)),
        ("pt-PT", ("birthday.pt", "pt", 2)),
        ("pt-BR", ("birthday.pt-BR", "pt-BR", 3)),
        ("pt-br-x-rio", ("birthday.pt-BR", "pt-BR", 3)),
        ("ptx", ("birthday", "default", 7)),
        ("fr", ("birthday", "default", 7)),
    ],
)
async def test_the_nearest_locale_wins(pool: asyncpg.Pool, locale: str | None, expected: tuple[str, str, int]) -> None:
    """The locale itself, then its parents, then the default; the case of letters and withdrawn ones do not matter."""
    await _activate(
        pool,
        ("birthday", "default", 7),
        ("birthday", "pt", 2),
        ("birthday", "pt-BR", 3),
        ("birthday", "fr", 0),
        ("work-anniversary", "de", 9),
    )
    assert await _choose(pool, "birthday", locale) == expected


async def test_without_a_template_only_birthdays_say_something(pool: asyncpg.Pool) -> None:
    """What is built in is version 0 of birthday; another type has nothing to say before something is published."""
    await _activate(pool, ("name-day", "el", 1))
    assert await _choose(pool, "birthday", "el") == ("birthday", "default", 0)
    assert await _choose(pool, "name-day", "de") is None


async def test_nothing_is_ranked_while_nothing_is_published(pool: asyncpg.Pool) -> None:
    """A claim chooses for each message: the ranking is skipped while all say what is built in."""
    plan = "EXPLAIN (ANALYZE, COSTS OFF) SELECT * FROM choose_template('birthday', 'pt-BR')"
    await _activate(pool, ("name-day", "de", 0))
    assert await _ranks(pool, plan) == {False}
    await _activate(pool, ("birthday", "pt", 2))
    assert await _ranks(pool, plan) == {True}


async def _ranks(pool: asyncpg.Pool, plan: str) -> set[bool]:
    """Return of the sorts of a plan whether they were executed."""
    lines = [line for (line,) in await pool.fetch(plan)]
    return {"never executed" not in line for line in lines if "->  Sort" in line}


async def test_types_with_a_published_template_are_planned(pool: asyncpg.Pool) -> None:
    """Birthday comes first and always; a type whose templates are all withdrawn is not planned."""
    async with pool.acquire() as connection:
        assert await read_types(connection) == ["birthday"]
        await _activate(pool, ("work-anniversary", "default", 1), ("work-anniversary", "de", 1), ("army", "default", 0))
        assert await read_types(connection) == ["birthday", "work-anniversary"]


async def test_a_version_is_never_changed(pool: asyncpg.Pool) -> None:
    """A version that was sent can be looked up later, whoever would like to have it otherwise."""
    await pool.execute("INSERT INTO templates VALUES ('birthday', 'pt', 1, 'Oi', NULL, NULL, NULL, now(), 'test')")
    for statement in ("UPDATE templates SET message = 'Ola'", "DELETE FROM templates"):
        with pytest.raises(asyncpg.RaiseError, match="rows of templates are never changed or removed"):
            await pool.execute(statement)
