"""Templates are compiled in a process of their own: what happens to it, and what a template can do to it."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest

from birthday.content import Template
from birthday.core.template import Source, TemplateKey
from birthday.embedded.process import exists
from birthday.errors import InvalidInputError
from birthday.operations.templates.compiler import Limits
from birthday.operations.templates.compiling import Compiler, CompilerEndedError
from birthday.store.claims import Claim
from birthday.store.templates import publish
from birthday.worker.texts import KEPT, Texts, say
from tests.support.product import eventually

AT = datetime(2026, 3, 1, 9, tzinfo=UTC)
GREETING = Source("Hi {{ first_name }}", html="<b>{{ first_name }}</b>")
ENDLESS = Source("x", html=f"{{{{ [{'1,' * 50_000}] | length }}}}")
"""Takes a second of processor time, and some ten megabytes."""


def claim_of(key: TemplateKey) -> Claim:
    """Return the claim of a message with this template."""
    user = ("Ada", "Lovelace", "ada@example.com", None, None, 1990)
    return Claim(uuid4(), "birthday", key, uuid4(), 1, AT, AT, *user, AT.date(), None)


async def running(compiler: Compiler) -> int:
    """Return the id of the process, after it has compiled something."""
    assert isinstance(await compiler.compile(GREETING, "en"), Template)
    assert compiler.pid is not None
    return compiler.pid


async def ended(pid: int) -> bool:
    """Say whether a process has ended."""
    return not exists(pid)


async def test_one_process_compiles_one_after_the_other_and_ends_with_its_owner() -> None:
    """It starts when it is first needed; what is wrong with a template is told with its place."""
    async with Compiler() as compiler:
        assert compiler.pid is None
        pids = set(await asyncio.gather(*(running(compiler) for _ in range(8))))
        with pytest.raises(InvalidInputError) as caught:
            await compiler.compile(Source("{{ a }}", "{{ b }}"), "en")
        assert [field.pointer for field in caught.value.fields] == ["/message", "/subject"]
        assert pids == {await running(compiler)}
    assert not exists(pids.pop())


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(cpu_seconds=0.2), "compiling it takes more than 0.2 s"),
        (Limits(memory_bytes=1), "compiling it takes too much memory"),
    ],
)
async def test_a_template_that_takes_too_much_is_refused_and_the_next_one_is_compiled(
    limits: Limits, reason: str
) -> None:
    """A limit ends the process or the attempt, not us."""
    async with Compiler(limits) as compiler:
        with pytest.raises(InvalidInputError, match=reason):
            await compiler.compile(ENDLESS, "en")
        await running(compiler)


async def test_a_process_that_was_killed_is_replaced() -> None:
    """Whether it was killed at rest or at work, nobody notices."""
    async with Compiler() as compiler:
        first = await running(compiler)
        os.kill(first, signal.SIGKILL)
        second = await running(compiler)
        waiting = asyncio.create_task(compiler.compile(GREETING, "en"))
        await asyncio.sleep(0)
        os.kill(second, signal.SIGKILL)
        assert (await waiting).source == GREETING
        assert len({first, second, await running(compiler)}) == 3


async def test_a_caller_who_leaves_does_not_confuse_the_next_one() -> None:
    """The answer to a request that was cancelled is not taken for the answer to another."""
    async with Compiler() as compiler:
        await running(compiler)
        leaving = asyncio.create_task(compiler.compile(ENDLESS, "en"))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        await running(compiler)


async def test_signals_to_a_whole_service_are_left_to_its_main_process() -> None:
    """Ctrl-C, a service manager and logrotate may signal every process, while messages are still being sent."""
    async with Compiler() as compiler:
        pid = await running(compiler)
        assert os.getsid(pid) != os.getsid(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(pid, number)
        assert await running(compiler) == pid


async def test_an_idle_process_ends_and_starts_again() -> None:
    """A worker that has all its templates does not keep the memory."""
    async with Compiler(Limits(idle_seconds=0.5)) as compiler:
        pid = await running(compiler)
        await eventually(lambda: ended(pid), "the idle process has ended")
        assert await running(compiler) != pid


async def test_without_a_process_templates_are_compiled_all_the_same() -> None:
    """A host may have no room for another process: messages are sent nevertheless."""
    for program in (["/nonexistent"], ["false"]):
        async with Compiler(program=program) as compiler:
            assert (await compiler.compile(GREETING, "en")).source == GREETING
            assert compiler.pid is None


_OWNER = """
import asyncio, os
from birthday.core.template import Source
from birthday.operations.templates.compiling import Compiler

async def main():
    compilers = [Compiler(), Compiler()]
    for compiler in compilers:
        await compiler.compile(Source("x"), "en")
    print(*(compiler.pid for compiler in compilers), flush=True)
    os.kill(os.getpid(), 9)

{run}(main())
"""


@pytest.mark.parametrize("run", ["asyncio.run", "__import__('uvloop').run"])
async def test_no_process_outlives_an_owner_that_was_killed(run: str) -> None:
    """The end of its input tells it, and no other process holds the other end of that."""
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER.format(run=run), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await owner.communicate()
    assert owner.returncode == -signal.SIGKILL
    first, second = map(int, said.split())
    await eventually(lambda: ended(first), "the first has ended", 10)
    await eventually(lambda: ended(second), "the second has ended", 10)


async def test_a_compiler_that_ends_fails_no_message(pool: asyncpg.Pool) -> None:
    """The text was compiled when it was published: a fault of the host must not make it a fault of the text."""
    source = Source("Hi {{ first_name }}", html="{{ first_name }}" * 400)
    async with pool.acquire() as connection, connection.transaction():
        await publish(connection, "birthday", "default", source, AT, "test")
    key = TemplateKey("birthday", "default", 1)
    claim = claim_of(key)
    async with Compiler(Limits(cpu_seconds=0.001)) as compiler:
        with pytest.raises(CompilerEndedError):
            await compiler.compile(source, "default")
        text = (await Texts(pool, compiler).load([claim]))[key]
    assert say(text, claim).message == "Hi Ada"


async def test_claims_that_overlap_drop_no_text_of_each_other(pool: asyncpg.Pool) -> None:
    """Together they need more templates than are kept: each of them has all that it needs."""
    keys = [TemplateKey("birthday", "default", version) for version in range(1, KEPT * 3 // 2 + 1)]
    await pool.execute(
        """
        INSERT INTO templates (message_type, locale, version, message, created_at, created_by)
        SELECT 'birthday', 'default', unnest($1::integer[]), 'Hi', $2, 'test'
        """,
        [key.version for key in keys],
        AT,
    )
    half = len(keys) // 2
    async with Compiler() as compiler:
        texts = Texts(pool, compiler)
        loads = [texts.load(map(claim_of, some)) for some in (keys[:half], keys[half:])]
        first, second = await asyncio.gather(*loads)
    assert [*sorted(first), *sorted(second)] == keys
