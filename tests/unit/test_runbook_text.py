"""``docs/runbook.md`` as a text: its examples are well formed, and whatever it names exists."""

import ast
import fnmatch
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from uuid import uuid4

import click
import pytest
import yaml

from birthday.cli.main import main
from tests.support.monitoring import known_names, metric_names, rules
from tests.support.runbook import (
    RUNBOOK,
    Block,
    Kind,
    classify,
    find_commands,
    is_query,
    promql_arguments,
    queries,
    read_anchors,
    read_blocks,
    read_links,
    read_spans,
    scheduled_command,
    shell_statements,
    syntax_error,
)

ROOT = RUNBOOK.parents[1]
OLD_ANCHORS = Path(__file__).parents[1] / "data" / "runbook_anchors.txt"
TEXT = RUNBOOK.read_text()
ON_A_COMMAND_LINE = re.compile(r"\$\{?(?:DATABASE_URL|RABBITMQ_URL|PGPASSWORD|\w*API_KEY)|Bearer|://[^/\s]+:[^/\s]+@")


def blocks(language: str) -> list[Block]:
    """Return the blocks of one language."""
    return [block for block in read_blocks(TEXT) if block.language == language]


@cache
def statements() -> list[str]:
    """Return every statement of the shell. That bash accepts each of them is how they are told apart."""
    return [statement for block in blocks("bash") for statement in shell_statements(block.text)]


def all_queries() -> Iterator[str]:
    """Yield every query: of blocks, of commands, and of the text."""
    for block in blocks("promql"):
        yield from queries(block.text)
    for statement in statements():
        yield from (query.replace("$END", "0") for query in promql_arguments(statement))
    yield from (span for span in read_spans(TEXT) if is_query(span))


def test_every_example_is_in_a_language_that_is_tried() -> None:
    """A block in an unknown language is refused, so none is left out without a word."""
    assert len(statements()) > 200
    assert len(blocks("sql")) >= 5
    with pytest.raises(ValueError, match="line 2: 'cobol'"):
        read_blocks("```cobol\nSTOP RUN.\n```\n")


def test_every_statement_of_the_shell_belongs_to_a_kind_and_is_well_formed() -> None:
    """A line of a crontab is looked at without its times, and each target of make is there."""
    makefile = (ROOT / "Makefile").read_text()
    for statement in statements():
        if classify(statement) is Kind.SCHEDULE:
            assert not syntax_error(scheduled_command(statement))
        for command in find_commands(statement):
            assert command[0] != "make" or re.search(rf"^{command[1]}:", makefile, re.MULTILINE), statement
    with pytest.raises(ValueError, match="unexpected end of file"):
        list(shell_statements("if true; then\n    date\n"))


def test_a_command_of_no_kind_is_refused() -> None:
    """Wherever it stands: in a pipe, in a substitution, in a loop, behind an assignment."""
    for statement in (
        "rm x",
        "echo a | rm x",
        'echo "$(rm x)"',
        "for x in a; do rm x; done",
        "A=1 rm x",
        "f() { rm x; }",
    ):
        with pytest.raises(ValueError, match="nothing is known about rm"):
            classify(statement)


def test_no_secret_stands_on_a_command_line() -> None:
    """Passwords and keys come from files and from the environment of the program: anybody can read a command line."""
    assert [statement for statement in statements() if ON_A_COMMAND_LINE.search(statement)] == []


def test_no_status_of_an_audit_is_taken_for_a_finding() -> None:
    """It also ends with another status than 0 if it could not be made: nobody is told of a loss for that."""
    audits = [statement for statement in statements() if "birthday audit" in statement]
    assert len(audits) > 5
    assert [statement for statement in audits if "||" in statement or "&&" in statement] == []


def test_no_probe_hides_its_answer() -> None:
    """Curl's -f drops the body of a 503, which holds the reason."""
    probes = [each for each in statements() if re.search(r"curl .*/(health|ready|alive)", each)]
    assert len(probes) > 10
    assert [probe for probe in probes if "--fail-with-body" not in probe] == []


def test_lines_of_libraries_are_explained() -> None:
    """They have no event of ours, and whoever finds one at night looks for it in the same table."""
    row = re.search(r"^\| anything with a `logger` \|(.*)$", TEXT, re.MULTILINE)
    assert row is not None
    assert {"aiormq.connection", "asyncpg.pool", "worker.database_unavailable"} <= set(read_spans(row[1]))


def test_the_program_takes_every_option() -> None:
    """Each ``birthday ...`` of an example is parsed by the program itself, which is not run."""
    found = [command for each in statements() for command in find_commands(each) if command[0] == "birthday"]
    assert len(found) >= 40
    for words in found:
        parse(words[1:])


def test_the_program_has_every_command_that_the_text_speaks_of() -> None:
    """``birthday ...`` between backticks names a command and options that exist; arguments may be left out."""
    spans = [shlex.split(span) for span in read_spans(TEXT) if span.startswith("birthday ") and "..." not in span]
    assert len(spans) > 10
    for words in spans:
        try:
            parse(words[1:])
        except click.MissingParameter:
            continue


def parse(words: list[str]) -> None:
    """Parse a command line of the program, with examples in place of what the shell would put there."""
    command: click.Command = main
    context = None
    arguments = list(takewhile(lambda word: word not in {"<", ">"}, words))
    rest = [
        str(uuid4()) if word == "$id" else "2026-11-23" if word.startswith("$(date") else word for word in arguments
    ]
    while isinstance(command, click.Group):
        context = click.Context(command, context)
        name, command, rest = command.resolve_command(context, rest)  # type: ignore[assignment] # it raises instead
        assert name is not None
    command.make_context(command.name, rest, context)


def deployments() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of the table of commands for each deployment: what is to be done, and the cell of each one."""
    part = TEXT.partition("\n## Commands for Each Deployment\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in part.splitlines() if line[:1] == "|"]
    [_, *ways], _, *rest = rows
    assert ways == ["Kubernetes", "Compose", "systemd", "PM2"]
    for action, *cells in rest:
        yield action, dict(zip(ways, cells, strict=True))


def typed(cell: str) -> Iterator[list[str]]:
    """Yield the commands in a cell, as their words: all that stands in backticks and begins with a program."""
    for span in re.findall(r"`([^`]+)`", cell):
        if " " in span:
            assert not syntax_error(span), span
            assert classify(span) in Kind
            yield from find_commands(span)


def kubernetes_action(words: list[str]) -> str:
    """Return what a command line of kubectl does, without its object: ``rollout restart``, ``scale``."""
    return " ".join(words[1:3] if words[1] in {"rollout", "set", "get"} else words[1:2])


def test_each_operational_action_has_its_command_for_each_deployment() -> None:
    """Whatever kubectl is typed for has a row; no cell is empty, and what has no command there says so."""
    rows = list(deployments())
    assert len(rows) > 15
    for action, cells in rows:
        for way, cell in cells.items():
            assert list(typed(cell)) or cell.startswith("none: "), (action, way)
    listed = {kubernetes_action(words) for _, cells in rows for words in typed(cells["Kubernetes"])}
    spans = [span for span in read_spans(TEXT) if span.startswith("kubectl ") and "..." not in span]
    found = {
        kubernetes_action(words)
        for each in [*statements(), *spans]
        for words in find_commands(each)
        # What only shows or reaches the program is a function of the operator's shell.
        if words[0] == "kubectl" and words[1] != "exec"
    }
    assert {"scale", "rollout restart", "set env", "top"} <= found
    assert found - listed == set()


def test_who_reads_a_command_of_kubectl_is_shown_the_way_to_the_others() -> None:
    """Each section that types one has a link to the table."""
    tables = ("## Before", "## Commands for Each Deployment")
    for section in re.split(r"^(?=#{2,3} )", TEXT, flags=re.MULTILINE):
        if "kubectl" in section and section.startswith("##") and not section.startswith(tables):
            assert "](#commands-for-each-deployment)" in section, section.partition("\n")[0]


def test_commands_of_the_other_deployments_name_what_there_is() -> None:
    """Services of Compose, units of systemd (also by pattern), applications of PM2, and options that Compose has."""
    units = [file.name.removesuffix(".service") for file in (ROOT / "config" / "systemd").glob("*.service")]
    units += [name.replace("@", f"@{port}") for name in units if name.endswith("@") for port in (3003, 3004)]
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    checked = set()
    for _, cells in deployments():
        for words in (words for cell in cells.values() for words in typed(cell)):
            match words:
                case ["docker", "compose", verb, *arguments]:
                    options = compose_options(verb)
                    assert {one.partition("=")[0] for one in arguments if one.startswith("--")} <= options, words
                    assert verb == "ps" or set(arguments) & set(services), words
                case ["pm2", verb, *arguments]:
                    assert verb in {"describe", "list", "logs", "reload", "scale", "start", "stop"}, words
                    named = {one for one in arguments[:1] if not one.startswith("-")}
                    assert named <= {"api", "scheduler", "worker", "all", "ecosystem.config.js"}, words
                case ["sudo", "systemctl", *arguments] | ["systemctl" | "journalctl", *arguments]:
                    named = {one.removesuffix(".service") for one in arguments if one.startswith("birthday-")}
                    assert named or "--dmesg" in arguments, words
                    assert [one for one in named if not fnmatch.filter(units, one)] == [], words
                case _:
                    continue
            checked.add(words[0])
    assert checked == {"docker", "pm2", "sudo", "systemctl", "journalctl"}


@cache
def compose_options(verb: str) -> frozenset[str]:
    """Return the long options that a command of Compose has, as it says itself."""
    compose = Path(sys.executable).with_name("docker-compose")
    told = subprocess.run([compose, verb, "--help"], check=True, capture_output=True, text=True).stdout
    return frozenset(re.findall(r"--[a-z-]+", told))


def test_every_query_names_series_that_exist() -> None:
    """Each is exported by the program, or recorded by the rules that the project brings."""
    known = known_names()
    found = set(all_queries())
    assert len(found) > 100
    assert {name: query for query in found for name in metric_names(query) - known} == {}


def test_every_link_leads_somewhere() -> None:
    """Within the runbook to a heading, outside of it to a file."""
    anchors = read_anchors(TEXT)
    links = read_links(TEXT)
    assert len(links) > 50
    for link in links:
        path, _, anchor = link.partition("#")
        assert (RUNBOOK.parent / path).exists() if path else anchor in anchors, link


def test_every_event_that_tells_of_trouble_is_explained() -> None:
    """Whoever finds a warning or worse in the log at night finds it in the runbook as well."""
    explained = set(read_spans(TEXT.partition("\n### Log Analysis\n")[2].partition("\n### ")[0]))
    found = {event for file in (ROOT / "birthday").rglob("*.py") for event in troubles(file)}
    assert len(found) > 30
    assert found - explained == set()


def troubles(file: Path) -> Iterator[str]:
    """Yield the events that a module logs as warnings or worse, as far as their names are literals."""
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    for call in calls:
        match call:
            case ast.Call(
                func=ast.Attribute(attr="warning" | "error" | "exception" | "critical"),
                args=[ast.Constant(value=str(event)), *_],
            ) if re.fullmatch(r"[a-z_]+\.[a-z_]+", event):
                yield event


def test_no_anchor_occurs_twice() -> None:
    """A link would lead to the first of them."""
    anchors = read_anchors(TEXT)
    assert [anchor for anchor in anchors if anchors.count(anchor) > 1] == []


def test_bookmarks_into_the_runbook_before_this_one_still_work() -> None:
    """Each of its headings has an anchor here."""
    assert set(OLD_ANCHORS.read_text().split()) <= set(read_anchors(TEXT))


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    """Each begins with the severity, names the dashboard that the alert links to, and says when to escalate."""
    alerts = {str(rule["alert"]): rule for rule in rules() if "alert" in rule}
    part = TEXT.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", part, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(alerts)
    for name, rule in alerts.items():
        labels, annotations = rule["labels"], rule["annotations"]
        assert isinstance(labels, dict)
        assert isinstance(annotations, dict)
        assert annotations["runbook_url"].endswith(f"/docs/runbook.md#{name.lower()}")
        first = re.sub(r"<a id=.*?</a>", "", sections[name]).strip()
        assert first.lower().startswith(labels["severity"]), name
        dashboard = annotations["dashboard_url"].partition("/d/")[2]
        assert dashboard in re.findall(r"/d/([a-z-]+)", sections[name]), name
        assert "**escalate**" in sections[name].lower(), name


def test_the_configuration_in_examples_is_well_formed() -> None:
    """YAML is parsed."""
    for block in blocks("yaml"):
        assert isinstance(yaml.safe_load(block.text), dict)
