"""The configuration of Prometheus and Alertmanager, as their own tools judge it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.monitoring import (
    CONFIG,
    PROMETHEUS,
    dashboards,
    known_names,
    metric_names,
    panels,
    rule_tests,
    rules,
)

ALERTMANAGER = CONFIG / "alertmanager" / "alertmanager.yml"
OF_THE_RUNBOOK = {
    "ServiceDown": "critical",
    "HighErrorRate": "critical",
    "DatabaseConnectionPoolExhausted": "critical",
    "QueueDepthCritical": "critical",
    "CircuitBreakerOpen": "critical",
    "DLQDepthHigh": "critical",
    "HighLatency": "warning",
    "MemoryUsageHigh": "warning",
    "SlowDatabaseQueries": "warning",
    "RetryRateHigh": "warning",
    "HighQueueDepth": "warning",
    "WorkerCrashRecovery": "warning",
    "SchedulerStalled": "critical",
    "ClockWrong": "critical",
    "NoConsumers": "critical",
    "MessagesOverdue": "critical",
    "MessagesExpired": "critical",
    "PausedTooLong": "warning",
    "DatabaseConnectionsNearLimit": "warning",
    "MessageServiceSlow": "warning",
    "ApiKeyExpiresSoon": "warning",
    "TimezoneDataDiffer": "warning",
}


def run(*arguments: str | Path) -> str:
    """Run a tool to its end and return what it printed; what it complains about fails the test."""
    finished = subprocess.run(arguments, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def alerts() -> list[dict[str, Any]]:
    """Return the rules that are alerts."""
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    """Return the names that rules record."""
    return {rule["record"] for rule in rules() if "record" in rule}


def alerts_in_tests(*, firing: bool) -> set[str]:
    """Return the alerts for which some test expects that they fire, or that they do not."""
    tests = [one for test in rule_tests() for one in test.get("alert_rule_test", [])]
    return {one["alertname"] for one in tests if bool(one.get("exp_alerts")) == firing}


def test_prometheus_accepts_its_configuration() -> None:
    """Scrape configuration, targets and rules."""
    assert "SUCCESS" in run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.slow
def test_every_rule_does_what_its_tests_say() -> None:
    """Promtool plays series to the rules and compares what comes of them."""
    assert "SUCCESS" in run("promtool", "test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml")))


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    """An alert that no test has seen in both states may be one that never fires, or never clears."""
    names = {alert["alert"] for alert in alerts()}
    assert alerts_in_tests(firing=True) == names
    assert alerts_in_tests(firing=False) == names


def test_every_recorded_name_is_seen_with_a_value() -> None:
    """A recording rule without a test may record nothing."""
    expressions = [
        one["expr"] for test in rule_tests() for one in test.get("promql_expr_test", []) if one.get("exp_samples")
    ]
    assert {name for expression in expressions for name in metric_names(expression)} == recorded()


def test_rules_name_only_what_is_exported_or_recorded() -> None:
    """A rule about a name that nobody exports would be silent for ever."""
    known = known_names()
    assert all(metric_names(rule["expr"]) or "vector" in rule["expr"] for rule in rules())
    assert {name: rule for rule in rules() for name in metric_names(rule["expr"]) - known} == {}


def test_the_alerts_of_the_runbook_are_there_with_their_severity() -> None:
    """Critical is what the runbook answers within minutes."""
    severities = {alert["alert"]: alert["labels"]["severity"] for alert in alerts()}
    assert severities.items() >= OF_THE_RUNBOOK.items()
    assert set(severities.values()) == {"critical", "warning"}


def test_every_alert_tells_what_to_read_and_where_to_look() -> None:
    """A summary, a description, the section of the runbook with its name, and a dashboard that exists."""
    runbook = (CONFIG.parent / "docs" / "runbook.md").read_text(encoding="utf-8")
    for alert in alerts():
        assert re.search(rf"^#+ {alert['alert']}$", runbook, re.MULTILINE)
        annotations = alert["annotations"]
        assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
        assert annotations["runbook_url"].endswith(f"}}}}/docs/runbook.md#{alert['alert'].lower()}")
        assert annotations["dashboard_url"].rpartition("/d/")[2] in dashboards()


def test_links_begin_where_prometheus_is_told() -> None:
    """The external labels that the links are made with exist, and alerts do not carry them as labels."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    used = {
        name
        for alert in alerts()
        for text in alert["annotations"].values()
        for name in re.findall(r"\$externalLabels\.(\w+)", text)
    }
    assert used == set(config["global"]["external_labels"])
    [dropped] = config["alerting"]["alert_relabel_configs"]
    assert dropped["action"] == "labeldrop"
    assert set(dropped["regex"].split("|")) == used


def test_prometheus_can_read_every_query_of_the_dashboards(tmp_path: Path) -> None:
    """Each query, with the variables filled in, is checked as if a rule recorded it."""
    recording = [{"record": f"query_{number}", "expr": panel.query} for number, panel in enumerate(panels())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recording}]}), encoding="utf-8")
    assert f"{len(recording)} rules found" in run("promtool", "check", "rules", file)


def test_alertmanager_accepts_its_configuration() -> None:
    """Routes, receivers and inhibitions."""
    assert "SUCCESS" in run("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "on-call"), ("warning", "team"), ("info", "team")])
def test_alerts_go_to_whom_their_severity_concerns(severity: str, receiver: str) -> None:
    """Critical alerts wake somebody; everything else can wait."""
    run(
        "amtool",
        "config",
        "routes",
        "test",
        f"--config.file={ALERTMANAGER}",
        f"--verify.receivers={receiver}",
        f"severity={severity}",
        "alertname=ServiceDown",
    )


def test_inhibitions_are_about_alerts_that_exist() -> None:
    """An alert that was renamed would otherwise be inhibited no more."""
    names = {alert["alert"] for alert in alerts()}
    config = yaml.safe_load(ALERTMANAGER.read_text(encoding="utf-8"))
    matchers = [
        one for rule in config["inhibit_rules"] for side in ("source", "target") for one in rule[f"{side}_matchers"]
    ]
    inhibited = [matcher for matcher in matchers if matcher.startswith("alertname=")]
    assert inhibited
    assert {name for matcher in inhibited for name in re.findall(r"\w+", matcher.partition("=")[2])} <= names


def test_the_configuration_holds_no_secrets() -> None:
    """What must be kept secret is in files that the configuration names."""
    for file in CONFIG.rglob("*.yml"):
        assert not re.search(r"^[\s-]*\w*(password|secret|token|_key|api_url):", file.read_text("utf-8"), re.MULTILINE)
