"""The dashboards of Grafana: what is committed agrees with its source, and shows what exists."""

import re
from typing import Any

import pytest

from config.grafana import generate
from tests.support.monitoring import DASHBOARDS, dashboards, known_names, metric_names, panels

# What the runbook lists for each dashboard.
LISTED = {
    "overview": {"System Health", "Error Rate", "Queue Depth"},
    "api-performance": {
        "Request Rate",
        "Success Rate",
        "P50/P95/P99 Latency",
        "Error Distribution",
        "Top Slow Endpoints",
    },
    "message-processing": {"Queue Depth", "Processing Rate", "DLQ Depth", "Retry Rate", "Message Latency"},
    "database": {"Connection Pool", "Query Latency", "Active Queries", "Slow Queries", "Transactions"},
    "infrastructure": {
        "CPU Usage",
        "Memory (RSS)",
        "Heap Usage",
        "Event Loop Lag",
        "GC Duration",
        "File Descriptors",
    },
    "security": {
        "Failed Login Attempts",
        "Unauthorized Access Events",
        "Rate Limit Violations",
        "Security Event Timeline",
    },
}

# Where the runbook's navigation goes down from each dashboard.
NAVIGATION = {
    "overview": {"api-performance", "message-processing", "database", "infrastructure", "security"},
    "api-performance": {"infrastructure"},
    "message-processing": {"database"},
    "database": {"infrastructure"},
    "infrastructure": set(),
    "security": set(),
}

# The runbook's thresholds, as (dashboard, panel, value, colour from there on).
THRESHOLDS = [
    ("overview", "Error Rate", 1, "yellow"),
    ("overview", "Error Rate", 5, "red"),
    ("overview", "Queue Depth", 100, "yellow"),
    ("overview", "Queue Depth", 1000, "red"),
    ("api-performance", "Success Rate", 99.9, "green"),
    ("api-performance", "P50/P95/P99 Latency", 1, "red"),
    ("api-performance", "Error Distribution", 0.1, "red"),
    ("api-performance", "Top Slow Endpoints", 0.5, "red"),
    ("message-processing", "Queue Depth", 100, "yellow"),
    ("message-processing", "DLQ Depth", 1, "yellow"),
    ("message-processing", "Retry Rate", 5, "yellow"),
    ("message-processing", "Message Latency", 30, "red"),
    ("database", "Connection Pool", 80, "yellow"),
    ("database", "Query Latency", 0.05, "red"),
    ("database", "Active Queries", 50, "red"),
    ("database", "Slow Queries, 1 Hour", 1, "red"),
    ("database", "Rollbacks", 1, "red"),
    ("infrastructure", "CPU Usage", 70, "red"),
    ("infrastructure", "Memory (RSS)", 80, "red"),
    ("infrastructure", "Heap Usage", 90, "red"),
    ("infrastructure", "Event Loop Lag", 0.1, "red"),
    ("infrastructure", "GC Duration", 0.1, "red"),
    ("infrastructure", "File Descriptors", 80, "red"),
]


def panel(uid: str, title: str) -> dict[str, Any]:
    """Return one panel as Grafana reads it."""
    [found] = [panel for panel in dashboards()[uid]["panels"] if panel["title"] == title]
    return dict(found)


def test_what_is_committed_is_what_the_source_says() -> None:
    """Whoever changes dashboards.toml runs generate.py; a JSON file that was changed by hand is found as well."""
    generated = {f"{uid}.json": generate.text_of(dashboard) for uid, dashboard in generate.dashboards().items()}
    committed = {file.name: file.read_text(encoding="utf-8") for file in DASHBOARDS.iterdir()}
    assert committed == generated


def test_the_dashboards_are_those_of_the_runbook() -> None:
    """Their addresses, /d/overview and so on, follow from the uid."""
    assert {dashboard["uid"] for dashboard in dashboards().values()} == set(LISTED)


@pytest.mark.parametrize("uid", LISTED)
def test_every_panel_that_the_runbook_lists_is_there(uid: str) -> None:
    """By the title that an engineer looks for."""
    assert {panel["title"] for panel in dashboards()[uid]["panels"]} >= LISTED[uid]


@pytest.mark.parametrize(("uid", "title", "value", "colour"), THRESHOLDS)
def test_panels_have_the_thresholds_of_the_runbook(uid: str, title: str, value: float, colour: str) -> None:
    """What the runbook calls unhealthy changes its colour there."""
    steps = panel(uid, title)["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert {"color": colour, "value": value} in steps
    assert steps[0]["value"] is None
    assert steps[0]["color"] != colour


@pytest.mark.parametrize("uid", NAVIGATION)
def test_links_go_where_the_runbook_says_and_back(uid: str) -> None:
    """Down as in its diagram, and from everywhere to the overview; what was selected and the time go with them."""
    links = dashboards()[uid]["links"]
    expected = NAVIGATION[uid] | ({"overview"} - {uid})
    assert {link["url"] for link in links} == {f"/d/{target}" for target in expected}
    assert all(link["includeVars"] and link["keepTime"] for link in links)


def test_every_variable_that_is_used_is_there() -> None:
    """A variable that a dashboard lacks would be sent to Prometheus as it is written."""
    for uid, dashboard in dashboards().items():
        offered = {variable["name"] for variable in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$(\w+)", " ".join(one.expression for one in panels() if one.dashboard == uid)))
        assert used <= offered
        assert {"namespace", "instance", "interval"} <= offered
    assert "path" in {variable["name"] for variable in dashboards()["api-performance"]["templating"]["list"]}


def test_dashboards_refresh_themselves() -> None:
    """Every 30 seconds, as the runbook has it for the overview."""
    assert {dashboard["refresh"] for dashboard in dashboards().values()} == {"30s"}


def test_no_two_panels_overlap() -> None:
    """Each cell of the grid belongs to at most one panel, and no panel leaves the grid."""
    for dashboard in dashboards().values():
        taken: set[tuple[int, int]] = set()
        for position in (panel["gridPos"] for panel in dashboard["panels"]):
            columns = range(position["x"], position["x"] + position["w"])
            cells = {(x, y) for x in columns for y in range(position["y"], position["y"] + position["h"])}
            assert columns.stop <= 24
            assert not cells & taken
            taken |= cells


def test_panels_name_only_what_is_exported_or_recorded() -> None:
    """A query for a name that nobody exports would show nothing for ever."""
    known = known_names()
    assert all(metric_names(panel.query) for panel in panels())
    assert {name: panel for panel in panels() for name in metric_names(panel.query) - known} == {}


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        pytest.param('sum by (le) (rate(a_bucket{b="c", d=~"e|f"}[5m]))', {"a_bucket"}, id="call"),
        pytest.param("100 * a / on (x, y) group_left () b:c:rate5m > 2e3", {"a", "b:c:rate5m"}, id="join"),
        pytest.param("a{x='{y}'} or vector(0) unless b offset 1d", {"a", "b"}, id="words"),
        pytest.param("(a\n  + b) # c", {"a", "b"}, id="comment"),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: set[str]) -> None:
    """What finds names finds all of them, and nothing else."""
    assert metric_names(expression) == names
