"""The types of statements: few, whatever the text."""

import ast
from pathlib import Path

import pytest

from birthday.telemetry.metrics import QUERY_TYPES
from birthday.telemetry.statements import query_type

PACKAGE = Path(__file__).parents[2] / "birthday"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1", "select"),
        ("SELECT id FROM users WHERE id = $1 FOR UPDATE", "select"),
        ("SELECT id FROM users FOR NO KEY UPDATE", "select"),
        ("\n    -- the next ones\n    WITH next AS (SELECT 1) SELECT id FROM next", "select"),
        ("INSERT INTO users (id) VALUES ($1) ON CONFLICT DO UPDATE SET id = $1", "insert"),
        ("WITH next AS (SELECT id FROM q FOR UPDATE SKIP LOCKED) UPDATE q SET a = 1 FROM next", "update"),
        ("WITH published AS (INSERT INTO q (a) SELECT 1) SELECT pg_notify('q', '')", "insert"),
        ("DELETE FROM users WHERE id IN (SELECT id FROM users FOR UPDATE SKIP LOCKED)", "delete"),
        ("BEGIN;", "transaction"),
        ("COMMIT;", "transaction"),
        ("ROLLBACK;", "transaction"),
        ("SAVEPOINT __asyncpg_savepoint_1__;", "transaction"),
        ("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", "other"),
        ("LISTEN queue_messages", "other"),
        ("SET plan_cache_mode = force_custom_plan", "other"),
        ("nonsense", "other"),
        ("", "other"),
    ],
)
def test_a_statement_is_named_for_what_it_does(text: str, expected: str) -> None:
    """Locks and conflict clauses change no type; a write in passing does."""
    assert query_type(text) == expected


def test_every_statement_of_the_program_has_a_type() -> None:
    """Each text that begins as a statement gets one of the types that are shown from the start."""
    texts = [
        node.value
        for file in (PACKAGE / "store").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    statements = [
        text for text in texts if text.lstrip().startswith(("SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "))
    ]
    assert len(statements) > 30
    assert {query_type(text) for text in statements} <= set(QUERY_TYPES) - {"other", "transaction"}
