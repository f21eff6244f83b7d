"""Publish templates, try them, keep them as files."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.content import Template
from birthday.core.document import validate
from birthday.core.template import BUILT_IN, BUILT_IN_SOURCE, Source, TemplateKey
from birthday.errors import ConflictError, InvalidInputError, NotFoundError
from birthday.operations.dead_letters.requeue import requeue_selected
from birthday.operations.templates.compiling import Compiler
from birthday.operations.templates.files import read_directory, write_directory
from birthday.operations.templates.publishing import Author, Published, activate_version, publish_template, rehearse
from birthday.operations.templates.trying import Trial, preview, send_test
from birthday.operations.templates.values import KnownInput, Site
from birthday.store.changes import Actor
from birthday.store.failed import FailedFilter
from birthday.store.templates import Audience, count_audiences, list_active, list_versions, read_version
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product
from tests.support.users import TESTER

NOW = datetime(2027, 3, 1, 9, tzinfo=UTC)
AUTHOR = Author(Actor("ada@laptop"), NOW)
DEFAULT = ("birthday", "default")


@pytest.fixture
async def compiler() -> AsyncIterator[Compiler]:
    """What compiles templates."""
    async with Compiler() as compiler:
        yield compiler


async def publish(
    pool: asyncpg.Pool, message: str, key: tuple[str, str] = DEFAULT, *, force: bool = False
) -> Published:
    """Publish a message."""
    return await publish_template(pool, key, Template(Source(message), key[1]), AUTHOR, Site(), force=force)


async def add_users(pool: asyncpg.Pool, count: int, locale: str | None = None, attributes: str | None = None) -> None:
    """Store users who are born on 1 March."""
    await pool.execute(
        """
        INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at,
                           updated_at, locale, attributes)
        SELECT gen_random_uuid(), 'Ada', 'Lovelace', gen_random_uuid() || '@example.com', '1990-03-01', 'UTC',
               $2, $2, $2, $3, $4::jsonb
        FROM generate_series(1, $1)
        """,
        count,
        NOW - timedelta(days=1),
        locale,
        attributes,
    )


async def test_each_change_is_a_version_and_older_ones_come_back(pool: asyncpg.Pool) -> None:
    """What is published is active at once, with its author; the same again makes no version."""
    assert await publish(pool, "one") == Published(TemplateKey(*DEFAULT, 1), is_new=True)
    assert (await publish(pool, "two")).key.version == 2
    assert await publish(pool, "two") == Published(TemplateKey(*DEFAULT, 2), is_new=False)
    await activate_version(pool, TemplateKey(*DEFAULT, 1), Author(Actor("grace"), NOW))
    async with pool.acquire() as connection:
        newest, first = await list_versions(connection, *DEFAULT, 10)
        assert (newest.source.message, newest.is_active, newest.created_by) == ("two", False, "ada@laptop")
        assert (first.source.message, first.is_active, first.created_at) == ("one", True, NOW)
        [active] = await list_active(connection)
        assert (active.key.version, active.activated_by) == (1, "grace")
        with pytest.raises(NotFoundError, match="there is no template birthday, version 7"):
            await activate_version(pool, TemplateKey(*DEFAULT, 7), AUTHOR)


async def test_version_0_is_what_is_built_in(pool: asyncpg.Pool) -> None:
    """It is active at first, can be made active again, and withdraws the template of another locale."""
    await publish(pool, "Oi", ("birthday", "pt"))
    await publish(pool, "Hi")
    for locale in ("default", "pt"):
        await activate_version(pool, TemplateKey("birthday", locale, 0), AUTHOR)
    async with pool.acquire() as connection:
        version = await read_version(connection, *DEFAULT)
        assert (version.key, version.source, version.is_active) == (BUILT_IN, BUILT_IN_SOURCE, True)
        row = await connection.fetchrow("SELECT * FROM choose_template('birthday', 'pt-BR')")
        assert row is not None
        assert tuple(row) == ("birthday", "default", 0)


async def test_another_type_begins_with_its_default(pool: asyncpg.Pool) -> None:
    """Otherwise users of other locales would be planned, and get nothing; nor can the default be withdrawn."""
    with pytest.raises(ConflictError, match="publish default first"):
        await publish(pool, "Parabens", ("name-day", "pt"))
    await publish(pool, "Hi", ("name-day", "default"))
    await publish(pool, "Parabens", ("name-day", "pt"))
    with pytest.raises(ConflictError, match="'birthday pause name-day' stops the type"):
        await activate_version(pool, TemplateKey("name-day", "default", 0), AUTHOR)


async def test_a_template_that_fails_for_some_is_refused_forced_and_repaired(pool: asyncpg.Pool) -> None:
    """The refusal has the number and ids; forced, only those are dead-lettered; repaired, a requeue delivers all."""
    await add_users(pool, 97, attributes='{"team": "red"}')
    await add_users(pool, 3)
    broken = "Go {{ attributes.team }}"
    with pytest.raises(InvalidInputError) as caught:
        await publish(pool, broken)
    summary, *failures = caught.value.fields
    assert summary.detail == "it fails for 3 of the 100 users whom it concerns; nothing was published"
    ids = {str(row["id"]) for row in await pool.fetch("SELECT id FROM users WHERE attributes IS NULL")}
    assert {failure.detail.split()[1].rstrip(":") for failure in failures} == ids
    forced = await publish(pool, broken, force=True)
    assert forced == Published(TemplateKey(*DEFAULT, 1), is_new=True, tried=100, failing=3)

    broker = PostgresBroker(pool)
    product = Product(pool, broker, ManualClock(NOW), Metrics())
    await product.planner.plan_once(NOW)
    await product.dispatcher.dispatch_once(NOW)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 97, "failed": 3})
        await publish(pool, "Go {{ attributes.team | default('on') }}")
        await requeue_selected(pool, broker, FailedFilter(), 100, product.clock, TESTER, lambda _ids: None)
        await product.wait_for_statuses({"delivered": 100})
    assert sorted(sent.greeting.text for sent in channel.sent) == ["Go on"] * 3 + ["Go red"] * 97
    await broker.close()


async def test_a_template_is_tried_for_those_who_get_it(pool: asyncpg.Pool) -> None:
    """Not for users of a nearer locale, of another one, or who are deleted, suppressed or without such a date."""
    await add_users(pool, 2, "pt")
    await add_users(pool, 4, "pt-BR")
    await add_users(pool, 8, "de")
    await add_users(pool, 16)
    assert (await publish(pool, "a", ("birthday", "pt-BR"))).tried == 4
    assert (await publish(pool, "b", ("birthday", "pt"))).tried == 2
    assert (await publish(pool, "c")).tried == 24
    await pool.execute("UPDATE users SET suppressed = true WHERE locale = 'de'")
    assert (await publish(pool, "d")).tried == 16
    assert (await publish(pool, "e", ("name-day", "default"))).tried == 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ frist_name }}", "message: line 1: frist_name is no variable"),
        ("{{ 1 / 0 }}", "it fails for a made-up user: message, line 1: division by zero"),
        ("{{ last_name }}", "it fails for a made-up user: message: it says nothing"),
    ],
)
async def test_a_mistake_is_found_without_any_user(pool: asyncpg.Pool, source: str, reason: str) -> None:
    """Somebody made up stands for the users who are still to come."""
    with pytest.raises(InvalidInputError, match=reason):
        await publish(pool, source, force=True)


async def test_a_preview_is_for_a_user_or_somebody_made_up(pool: asyncpg.Pool, compiler: Compiler) -> None:
    """It takes the template that the user would get, another locale, or a draft that is not stored."""
    await publish(pool, "{{ full_name }}, {{ years | ordinal }}, {{ date | date }}")
    await publish(pool, "Oi {{ first_name }}", ("birthday", "pt"))
    await add_users(pool, 1, "pt")
    user_id = UUID(bytes=(await pool.fetchval("SELECT id FROM users")).bytes)
    today = date(2027, 4, 1)

    async def say(trial: Trial) -> str:
        return (await preview(pool, compiler, trial, today, Site())).said.message

    assert await say(Trial("birthday", user_id=user_id)) == "Oi Ada"
    assert await say(Trial("birthday", "default", user_id=user_id)) == "Ada Lovelace, 38th, March 1, 2028"
    assert await say(Trial("birthday", "default", 0, user_id=user_id)) == "Hey, Ada Lovelace it's your birthday"
    given = {"firstName": "Cher", "lastName": "", "years": None, "attributes": {"a": 1}}
    known = validate(KnownInput, given).known()
    draft = Source("{{ full_name }} {{ attributes.a }}{% if years is none %}!{% endif %}")
    assert await say(Trial("birthday", known=known, draft=draft)) == "Cher 1!"
    with pytest.raises(NotFoundError, match="with a date of the type name-day"):
        await say(Trial("name-day", user_id=user_id))
    with pytest.raises(InvalidInputError, match="shoeSize"):
        validate(KnownInput, {"shoeSize": 43})


async def test_a_link_to_unsubscribe_is_there_if_this_api_has_an_address(pool: asyncpg.Pool) -> None:
    """Without PUBLIC_URL a template that prints the link would fail for everybody, so it is refused."""
    await add_users(pool, 1)
    template, link = (
        Template(Source("Stop: {{ unsubscribe_url }}"), "default"),
        "https://example.com/unsubscribe/example",
    )
    with pytest.raises(InvalidInputError, match="a value is not known"):
        await publish_template(pool, DEFAULT, template, AUTHOR, Site())
    published = await publish_template(pool, DEFAULT, template, AUTHOR, Site(unsubscribe_url=link))
    assert (published.tried, published.failing) == (1, 0)


async def test_a_rehearsal_tells_for_whom_a_template_would_fail(pool: asyncpg.Pool) -> None:
    """It is tried for everybody whom it would concern, and nothing is published."""
    await add_users(pool, 1500, "pt-BR", '{"team": "red"}')
    await add_users(pool, 2, "pt")
    await add_users(pool, 1, "de")
    told = list[int]()

    async def tell(tried: int) -> None:
        told.append(tried)

    template = Template(Source("Oi {{ attributes.team }}"), "pt")
    found = await rehearse(pool, ("birthday", "pt"), template, NOW, Site(), tell)
    assert (found.tried, found.failing, told[-1]) == (1502, 2, 1502)
    assert 900 < told[0] <= 1000
    ids = {str(row["id"]) for row in await pool.fetch("SELECT id FROM users WHERE locale = 'pt'")}
    assert {str(one.user_id) for one in found.first} == ids
    assert {one.reason.partition(":")[0] for one in found.first} == {"message, line 1"}
    assert await pool.fetchval("SELECT count(*) FROM templates") == 0


async def test_who_gets_which_template_is_counted_or_estimated(pool: asyncpg.Pool) -> None:
    """Few users are counted; of many, a sample says about how many there are. Who gets nothing is told too."""
    await add_users(pool, 4000, "pt-BR")
    await add_users(pool, 1000)
    await publish(pool, "Oi", ("birthday", "pt"))
    await pool.execute(
        """
        INSERT INTO anniversaries (user_id, message_type, date, timezone, schedule_from)
        SELECT id, 'name-day', '2020-06-24', timezone, schedule_from FROM users WHERE locale IS NULL LIMIT 7
        """
    )
    async with pool.acquire() as connection:
        exact, sampled = await count_audiences(connection), await count_audiences(connection, 20)
    assert exact.found == (
        Audience("birthday", "pt-BR", "pt", 4000),
        Audience("birthday", None, "default", 1000),
        Audience("name-day", None, None, 7),
    )
    assert (exact.is_exact, sampled.is_exact) == (True, False)
    assert (exact.count("birthday", "pt"), exact.count("name-day", None)) == (4000, 7)
    assert 2000 < sampled.count("birthday", "pt") < 8000


async def test_a_test_needs_no_user_and_leaves_nothing(pool: asyncpg.Pool, compiler: Compiler) -> None:
    """It goes through the channel with an id of its own, is marked, and is no message of anybody."""
    channel = RecordingChannel(ManualClock(NOW))
    trial, to = Trial("birthday"), "dev@example.com"
    outcomes = [await send_test(pool, channel, compiler, trial, to, NOW, Site()) for _ in range(2)]
    assert outcomes == [channel.answer(channel.sent[0].greeting)] * 2
    first, second = (sent.greeting for sent in channel.sent)
    assert (first.email, first.text) == ("dev@example.com", "[Test] Hey, Ada Lovelace it's your birthday")
    assert first.message_id != second.message_id
    assert await pool.fetchval("SELECT count(*) FROM message_logs") == 0


def test_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    """Each part has its file, the last line end belongs to the file, and a part that is gone takes its file along."""
    sources = {
        ("birthday", "default"): Source("Hi\n\nthere", "S", "<p>ä</p>", "{}"),
        ("birthday", "pt-BR"): Source("Oi"),
        ("name-day", "default"): Source("x"),
    }
    write_directory(tmp_path, sources)
    (tmp_path / "README.md").write_text("ours")
    (tmp_path / ".git").mkdir()
    assert read_directory(tmp_path) == sources
    assert (tmp_path / "birthday" / "default" / "body.html").read_text() == "<p>ä</p>\n"
    write_directory(tmp_path, {("birthday", "default"): replace(sources["birthday", "default"], html=None)})
    assert read_directory(tmp_path)["birthday", "default"].html is None


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda place: (place / "message.txt").unlink(), "has no message.txt"),
        (lambda place: (place / "Message.txt").write_text("x"), "accepted are message.txt, subject.txt, body.html"),
        (lambda place: (place / "message.txt").write_bytes(b"\xff"), "message.txt is not UTF-8: byte 0"),
        (lambda place: place.rename(place.parent / "Portuguese"), "is not a locale"),
        (lambda place: place.parent.rename(place.parents[1] / "Birthday"), "'Birthday' is no message type"),
    ],
)
def test_a_file_that_is_not_understood_is_named(
    tmp_path: Path, break_it: Callable[[Path], object], reason: str
) -> None:
    """A misspelled name is an error: otherwise a part would be missing without a word."""
    write_directory(tmp_path, {("birthday", "pt"): Source("Oi")})
    break_it(tmp_path / "birthday" / "pt")
    with pytest.raises(InvalidInputError, match=reason) as caught:
        read_directory(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_directory_without_templates_is_named(tmp_path: Path) -> None:
    """An empty or wrong directory publishes nothing, and says so."""
    with pytest.raises(InvalidInputError, match="has no templates; directories such as birthday/default"):
        read_directory(tmp_path)
