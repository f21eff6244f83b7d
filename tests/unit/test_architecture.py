"""Rules of the code's shape that neither ruff nor import-linter can express, each with proof that it finds a breach."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = sorted((ROOT / "birthday").rglob("*.py"))
TEST_MODULES = sorted((ROOT / "tests").rglob("test_*.py"))

MAY_READ_ENVIRONMENT = ("birthday/config/loading.py",)
MAY_CONTAIN_SQL = (
    "birthday/store/",
    "birthday/broker/postgres/",
    "birthday/store/migrations.py",
    "birthday/embedded/",
)
# CREATE DATABASE takes no parameters; the name is a constant.
MAY_COMPOSE_SQL = ("birthday/embedded/cluster.py",)
# One per message, one per tick, one per request: each logs, counts, and lets the process live on.
MAY_CATCH_EVERYTHING = (
    "birthday/cli/command.py",
    "birthday/worker/sender.py",
    "birthday/worker/pipeline.py",
    "birthday/telemetry/supervision.py",
    "birthday/embedded/__init__.py",
    "birthday/scheduler/loop.py",
    "birthday/http/middleware/problems.py",
    "birthday/http/console/frame.py",
)

SQL = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|CREATE|ALTER|DROP|TRUNCATE|COPY|MERGE|SET)\s")
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv"}
SLEEPS = {"asyncio.sleep", "time.sleep"}
# A test that cannot run on some machine says so with skipif, which the closing line counts.
SHORTCUTS = {
    "unittest.mock",
    "monkeypatch.setattr",
    "monkeypatch.setitem",
    "pytest.skip",
    "pytest.mark.skip",
    "pytest.mark.xfail",
    "pytest.xfail",
}

Rule = Callable[[ast.Module], Iterator[ast.AST]]


def environment_reads(tree: ast.Module) -> Iterator[ast.AST]:
    """Find what reads or changes the environment."""
    return uses(tree, ENVIRONMENT)


def shortcuts(tree: ast.Module) -> Iterator[ast.AST]:
    """Find mocks, patches and skips."""
    return uses(tree, SHORTCUTS)


def blind_sleeps(tree: ast.Module) -> Iterator[ast.AST]:
    """Find sleeps that are neither the pause of a loop that waits for a condition, nor one turn of the event loop."""
    accepted: set[ast.AST] = set()
    for node in ast.walk(tree):
        match node:
            case ast.While():
                accepted.update(ast.walk(node))
            case ast.Call(func=sleep, args=[ast.Constant(value=0)]):
                accepted.add(sleep)
    return (node for node in uses(tree, SLEEPS) if node not in accepted)


def sql_texts(tree: ast.Module) -> Iterator[ast.AST]:
    """Find strings that begin as a statement of SQL does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value):
            yield node


def composed_sql(tree: ast.Module) -> Iterator[ast.AST]:
    """Find SQL that is put together at run time: f-strings, operators and methods of text."""
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
                pass
            case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Add() | ast.Mod()):
                pass
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)))):
                pass
            case _:
                continue
        if SQL.match(text):
            yield node


def catch_alls(tree: ast.Module) -> Iterator[ast.AST]:
    """Find handlers that swallow whatever happens; one that ends with a bare ``raise`` swallows nothing."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        catches_all = any(
            one is None or (isinstance(one, ast.Name) and one.id in {"Exception", "BaseException"}) for one in caught
        )
        last = node.body[-1]
        if catches_all and not (isinstance(last, ast.Raise) and last.exc is None):
            yield node


def uses(tree: ast.Module, banned: set[str]) -> Iterator[ast.AST]:
    """Find imports and mentions of dotted names, whatever name they were imported as."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                aliases |= {name.asname: name.name for name in names if name.asname}
                imported = {name.name for name in names}
            case ast.ImportFrom(module=str(module), names=names):
                aliases |= {name.asname or name.name: f"{module}.{name.name}" for name in names}
                imported = {f"{module}.{name.name}" for name in names} | {module}
            case _:
                continue
        if imported & banned:
            yield node
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted_name(node, aliases) in banned:
            yield node


def dotted_name(node: ast.expr, aliases: dict[str, str]) -> str:
    """Return what a chain of attributes names, or something that no rule knows."""
    match node:
        case ast.Attribute(value=value, attr=attribute):
            return f"{dotted_name(value, aliases)}.{attribute}"
        case ast.Name(id=name):
            return aliases.get(name, name)
        case _:
            return "?"


def breaches(rule: Rule, files: list[Path], excepted: tuple[str, ...] = ()) -> list[str]:
    """Return ``path:line`` of whatever ``rule`` finds in ``files``."""
    found = []
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        if not path.startswith(excepted):
            tree = ast.parse(file.read_text(encoding="utf-8"), path)
            found += [f"{path}:{getattr(node, 'lineno', 0)}" for node in rule(tree)]
    return found


def test_only_config_reads_the_environment() -> None:
    """A setting that is read elsewhere would be missing from ``birthday check`` and from validation."""
    assert breaches(environment_reads, PRODUCT, MAY_READ_ENVIRONMENT) == []


def test_sql_stays_where_it_belongs() -> None:
    """SQL stands in the store, the PostgreSQL broker, the migration runner and the embedded server only."""
    assert breaches(sql_texts, PRODUCT, MAY_CONTAIN_SQL) == []


def test_sql_is_static_text() -> None:
    """Values are bound, never pasted, and every statement can be read and prepared as it stands."""
    assert breaches(composed_sql, PRODUCT, MAY_COMPOSE_SQL) == []


def test_few_places_catch_everything() -> None:
    """A catch-all hides mistakes, so it stands only where one failure must not stop the rest."""
    assert breaches(catch_alls, PRODUCT, MAY_CATCH_EVERYTHING) == []


def test_tests_take_no_shortcuts() -> None:
    """Tests use the real thing and always run: no mocks, patches of our code, or skips."""
    assert breaches(shortcuts, TEST_MODULES) == []


def test_tests_wait_for_conditions() -> None:
    """A test that sleeps for a while is slow on a fast machine and fails on a slow one."""
    assert breaches(blind_sleeps, TEST_MODULES) == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        pytest.param(environment_reads, "import os\nos.environ['HOST']", id="environ"),
        pytest.param(environment_reads, "import os as system\nsystem.getenv('HOST')", id="renamed-module"),
        pytest.param(environment_reads, "from os import environ", id="imported-name"),
        pytest.param(sql_texts, 'QUERY = """\n    SELECT id FROM users"""', id="sql"),
        pytest.param(composed_sql, 'query = f"SELECT id FROM {table}"', id="f-string"),
        pytest.param(composed_sql, 'query = "DELETE FROM " + table', id="plus"),
        pytest.param(composed_sql, 'query = "UPDATE users SET %s" % column', id="percent"),
        pytest.param(composed_sql, 'query = "DELETE FROM {}".format(table)', id="format"),
        pytest.param(catch_alls, "try:\n    run()\nexcept Exception:\n    log()", id="except-exception"),
        pytest.param(catch_alls, "try:\n    run()\nexcept:\n    log()", id="bare-except"),
        pytest.param(catch_alls, "try:\n    run()\nexcept (OSError, Exception):\n    log()", id="tuple"),
        pytest.param(blind_sleeps, "from asyncio import sleep", id="sleep"),
        pytest.param(blind_sleeps, "import time\ntime.sleep(1)\nassert done", id="blocking-sleep"),
        pytest.param(shortcuts, "from unittest import mock", id="mock"),
        pytest.param(shortcuts, "import unittest.mock", id="mock-module"),
        pytest.param(shortcuts, "def test(monkeypatch):\n    monkeypatch.setattr(module, 'name', 1)", id="patch"),
        pytest.param(shortcuts, "@pytest.mark.skip\ndef test(): ...", id="skip"),
    ],
)
def test_each_rule_finds_a_breach(rule: Rule, source: str) -> None:
    """A rule that finds nothing in code that breaks it would guard nothing."""
    assert list(rule(ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        pytest.param(environment_reads, "import os\nos.path.join(environ)", id="other-names"),
        pytest.param(sql_texts, '"""Update what is due; a SELECT follows."""', id="prose"),
        pytest.param(composed_sql, 'query = "SELECT id FROM users WHERE id = $1"', id="static"),
        pytest.param(catch_alls, "try:\n    run()\nexcept BaseException:\n    undo()\n    raise", id="re-raised"),
        pytest.param(blind_sleeps, "import asyncio\nwhile not done():\n    asyncio.sleep(0.1)", id="poll"),
        pytest.param(blind_sleeps, "import asyncio\nasyncio.sleep(0)", id="turn"),
        pytest.param(shortcuts, "def test(monkeypatch):\n    monkeypatch.setenv('HOST', '::1')", id="environment"),
    ],
)
def test_no_rule_finds_what_is_allowed(rule: Rule, source: str) -> None:
    """A rule that finds too much would be switched off soon."""
    assert not list(rule(ast.parse(source)))
