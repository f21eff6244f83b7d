"""No metric without a mover, no rule without a metric, and a list that tells of them all."""

import ast
import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from birthday.telemetry.figures import Figure
from birthday.telemetry.listing import listing
from birthday.telemetry.metrics import PREFIX, Metrics

ROOT = Path(__file__).parents[2]
RECORDED = re.compile(r"^\s*-?\s*record:\s*(\S+)", re.MULTILINE)
NAMED = re.compile(rf"\b{PREFIX}_[a-z0-9_]+")
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def instruments() -> set[str]:
    """Return the names by which the program knows its metrics."""
    kinds = (Counter, Gauge, Histogram, Figure)
    return {name for name, value in vars(Metrics()).items() if isinstance(value, kinds)}


def used(source: str) -> set[str]:
    """Return the metrics that a module takes from an object called ``metrics`` or ``_metrics``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name, value=ast.Name(id="metrics") | ast.Attribute(attr="metrics" | "_metrics")):
                found.add(name)
    return found


def exported() -> set[str]:
    """Return every name that a process exports."""
    lines = [line.split(" | ") for line in listing(Metrics()).splitlines() if line.startswith("| ")][2:]
    names: set[str] = set()
    for name, kind, *_ in lines:
        full = name.removeprefix("| ") if name == "| python_info" else f"{PREFIX}_{name.removeprefix('| ')}"
        names.update(full + suffix for suffix in SUFFIXES[kind])
    return names


def test_every_metric_is_moved_somewhere() -> None:
    """Some module has to do with each; one that is only declared would stay 0 for ever."""
    modules = [file for file in (ROOT / "birthday").rglob("*.py") if file.name not in {"metrics.py", "listing.py"}]
    assert len(instruments()) > 60
    assert instruments() - set().union(*(used(module.read_text(encoding="utf-8")) for module in modules)) == set()


def test_an_attribute_of_something_else_moves_no_metric() -> None:
    """Only what is taken from the metrics counts: ``settings.prefetch_count`` moves nothing."""
    assert used("settings.prefetch_count = self.queue_depth") == set()
    assert used("self._metrics.prefetch_count.set(1)\nmetrics.queue_depth.show(1)") == {"prefetch_count", "queue_depth"}


def test_what_the_rules_and_dashboards_name_is_exported() -> None:
    """A query for a name that nobody exports or records would be empty for ever, and an alert silent."""
    files = [file for file in (ROOT / "config").rglob("*") if file.suffix in {".yml", ".yaml", ".json", ".toml"}]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    known = exported() | set(RECORDED.findall(text))
    assert len(files) > 5
    assert set(NAMED.findall(text)) - known == set()


def test_the_list_is_up_to_date() -> None:
    """docs/metrics.md is what ``python -m birthday.telemetry.listing`` prints."""
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == listing(Metrics())


def test_every_metric_says_what_it_means() -> None:
    """The list has a meaning for each, as a sentence."""
    rows = [line.strip("| ").split("|") for line in listing(Metrics()).splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 80
    for row in rows:
        assert re.search(r"[A-Za-z0-9].{10,}", row[-1]), row
