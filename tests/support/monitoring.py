"""What config/prometheus and config/grafana say, and the names in their expressions."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from birthday.telemetry.metrics import Metrics

CONFIG = Path(__file__).parents[2] / "config"
PROMETHEUS = CONFIG / "prometheus"
DASHBOARDS = CONFIG / "grafana" / "dashboards"

VARIABLES = {"$namespace": ".*", "$instance": ".*", "$path": ".*", "$interval": "5m"}
OF_PROMETHEUS = frozenset({"up", "ALERTS"})

_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'")
_MATCHERS = re.compile(r"\{[^}]*\}")
_RANGES = re.compile(r"\[[^\]]*\]")
_LABEL_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAMES = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "inf", "nan"})


@dataclass(frozen=True)
class Panel:
    """One query of a dashboard."""

    dashboard: str
    title: str
    expression: str
    """With the variables that Grafana fills in."""

    @property
    def query(self) -> str:
        """The expression as Grafana sends it when everything is selected."""
        query = self.expression
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        return query


def rules() -> list[dict[str, Any]]:
    """Return all rules: recording rules and alerts."""
    return [
        rule
        for file in sorted((PROMETHEUS / "rules").glob("*.yml"))
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def rule_tests() -> list[dict[str, Any]]:
    """Return the tests that promtool runs."""
    return [
        test
        for file in sorted((PROMETHEUS / "tests").glob("*.yml"))
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
    ]


def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards that are committed, by their uid."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(DASHBOARDS.glob("*.json"))}


def panels() -> list[Panel]:
    """Return every query of every panel."""
    return [
        Panel(uid, panel["title"], target["expr"])
        for uid, dashboard in dashboards().items()
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def metric_names(expression: str) -> set[str]:
    """Return the names of the series that an expression asks for."""
    rest = re.sub(r"#.*", "", _TEXTS.sub("", expression))
    for part in (_MATCHERS, _RANGES, _LABEL_LISTS):
        rest = part.sub(" ", rest)
    return set(_NAMES.findall(rest)) - _WORDS


def known_names() -> set[str]:
    """Return the names that a query can ask for: of series that are exported, recorded, or made by Prometheus."""
    return set(_exported()) | {rule["record"] for rule in rules() if "record" in rule} | OF_PROMETHEUS


def _exported() -> Iterator[str]:
    for family in Metrics().registry.collect():
        match family.type:
            case "counter":
                yield f"{family.name}_total"
            case "histogram":
                yield from (f"{family.name}_{part}" for part in ("bucket", "sum", "count"))
            case _:
                yield family.name
