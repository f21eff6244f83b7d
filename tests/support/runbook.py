"""``docs/runbook.md`` taken apart: headings, links, and every example, by the language of its block.

An example is a statement of the shell, a statement of SQL or a query of PromQL. Nothing is left out: a block in a
language that is not listed here, and a command that belongs to no kind, is an error.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

RUNBOOK: Final = Path(__file__).parents[2] / "docs" / "runbook.md"
LANGUAGES: Final = frozenset({"bash", "sql", "promql", "yaml", "mermaid", "text", "markdown"})


class Kind(Enum):
    """Who answers a statement of the shell, and so how it is tried.

    OURS       the program, its API, database, queue, logs and monitoring: it is run
    MAKE       a target of the Makefile: make says what it would do
    FOREIGN    infrastructure that the project does not bring: its syntax is checked
    SCHEDULE   a line of a crontab: as FOREIGN
    """

    OURS = auto()
    MAKE = auto()
    FOREIGN = auto()
    SCHEDULE = auto()


OURS: Final = frozenset(
    {
        *(
            "alerts",
            "birthday",
            "createdb",
            "cat",
            "curl",
            "logs",
            "pg_restore",
            "promql",
            "psql",
            "rabbitmqadmin",
            "watch",
        ),
        "scripts/backup-database.sh",
        *("awk", "date", "echo", "export", "find", "for", "grep", "head", "jq", "sleep", "sort", "tail", "tr", "uniq"),
    }
)
FOREIGN: Final = frozenset(
    {
        *("aws", "docker", "git", "journalctl", "kubectl", "pm2", "sudo", "systemctl"),
        *(".venv/bin/birthday", "/opt/birthday-scheduler/.venv/bin/birthday"),
    }
)
_GRAMMAR: Final = frozenset({"do", "done", "{", "}"})
_SEPARATORS: Final = "();|&\n"
_SCHEDULE: Final = re.compile(r"(?:[\d*/,-]+ ){5}(.+)")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=(.*)", re.DOTALL)
_SERIES: Final = re.compile(r"\b(?:birthday_scheduler_|slo:|sli_)\w")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and the number of its first line."""

    language: str
    text: str
    line: int


def read_blocks(text: str) -> list[Block]:
    """Return all fenced blocks.

    Raises:
        ValueError: if a block has no language, or one that nothing is known about.
    """
    blocks = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 2
        if match[1] not in LANGUAGES:
            raise ValueError(f"line {line}: '{match[1]}' is no language of the runbook's examples")
        blocks.append(Block(match[1], match[2], line))
    return blocks


def read_spans(text: str) -> list[str]:
    """Return everything in backticks outside of fenced blocks, as it reads in a table or out of one."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [span.replace(r"\|", "|") for span in re.findall(r"`([^`\n]+)`", prose)]


def read_anchors(text: str) -> list[str]:
    """Return what a link may point to: the headings, as GitHub names them, and explicit anchors."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return [slug(heading) for heading in headings] + re.findall(r'<a id="([^"]+)">', prose)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def read_links(text: str) -> list[str]:
    """Return the targets of all links outside of fenced blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def shell_statements(block: str) -> Iterator[str]:
    """Yield the statements of a block one by one, without comments between them.

    Raises:
        ValueError: if what is left at the end is no statement; with what bash says about it.
    """
    lines: list[str] = []
    problem = ""
    for line in block.splitlines():
        if not lines and (not line.strip() or line.startswith("#")):
            continue
        lines.append(line)
        problem = syntax_error("\n".join(lines))
        if not problem and not line.endswith("\\"):
            yield "\n".join(lines)
            lines = []
    if lines:
        raise ValueError(f"{problem}\n" + "\n".join(lines))


def syntax_error(statement: str) -> str:
    """Return what bash has against a statement, which it does not run; nothing if it is well formed."""
    return subprocess.run(["bash", "-n"], input=statement, capture_output=True, text=True, check=False).stderr


def sql_statements(block: str) -> list[str]:
    """Return the statements of a block without comments. None of them has a semicolon or two dashes within."""
    bare = re.sub(r"--.*", "", block)
    return [statement.strip() for statement in bare.split(";") if statement.strip()]


def queries(block: str) -> list[str]:
    """Return the queries of a block, which blank lines separate, without comments."""
    bare = re.sub(r"^#.*\n", "", block, flags=re.MULTILINE)
    return [query.strip() for query in bare.split("\n\n") if query.strip()]


def classify(statement: str) -> Kind:
    """Say how a statement of the shell is tried: by the most foreign of its programs.

    Raises:
        ValueError: if one of its programs belongs to no kind.
    """
    if _SCHEDULE.fullmatch(statement):
        return Kind.SCHEDULE
    programs = set(find_programs(statement))
    if unknown := programs - OURS - FOREIGN - {"make"}:
        raise ValueError(f"nothing is known about {', '.join(sorted(unknown))}: {statement}")
    if programs & FOREIGN:
        return Kind.FOREIGN
    return Kind.MAKE if "make" in programs else Kind.OURS


def scheduled_command(line: str) -> str:
    """Return what a line of a crontab runs."""
    match = _SCHEDULE.fullmatch(line)
    assert match is not None
    return match[1]


def find_programs(statement: str) -> Iterator[str]:
    """Yield the programs and functions that a statement calls, in whatever part of it."""
    for command in find_commands(statement):
        yield command[0]


def find_commands(statement: str) -> Iterator[list[str]]:
    """Yield the commands of a statement, each as its words; a definition counts by what it does."""
    words: list[str] = []
    for token in [*_tokens(statement), "\n"]:
        if not set(token) <= set(_SEPARATORS):
            for inner in re.findall(r"\$\((.*?)\)", token) if "$(" in token else ():
                yield from find_commands(inner)
            words.append(token)
            continue
        # The name of a function that is being defined is no call.
        if token != "()" and (command := _strip(words)):
            yield command
        words = []


def _tokens(statement: str) -> list[str]:
    lexer = shlex.shlex(statement, posix=True, punctuation_chars=_SEPARATORS)
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    return list(lexer)


def _strip(words: list[str]) -> list[str]:
    """Return a command without the words of the grammar and the assignments before it."""
    rest = list(words)
    while rest and (rest[0] in _GRAMMAR or _ASSIGNMENT.fullmatch(rest[0])):
        del rest[0]
    return rest


def promql_arguments(statement: str) -> Iterator[str]:
    """Yield the queries that a statement asks Prometheus, as they stand in the text."""
    for command in find_commands(statement):
        if command[0] == "promql":
            yield command[1]


def is_query(span: str) -> bool:
    """Say whether something in backticks is a query: it names a series of ours."""
    return bool(_SERIES.search(span))
