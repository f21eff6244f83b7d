#!/usr/bin/env python3
"""Write the dashboards of Grafana from what dashboards.toml says about them.

Run it after a change of dashboards.toml, and commit both: ``python config/grafana/generate.py``.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUTPUT = HERE / "dashboards"

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
SIZES = {"stat": (4, 4), "bargauge": (12, 8), "timeseries": (12, 8)}
COLUMNS = 24
SCOPE = 'namespace=~"$namespace", instance=~"$instance"'
LABEL_VALUES = {
    "namespace": 'label_values(up{job="birthday-scheduler"}, namespace)',
    "instance": 'label_values(up{job="birthday-scheduler", namespace=~"$namespace"}, instance)',
    "path": 'label_values(birthday_scheduler_api_requests_total{namespace=~"$namespace"}, path)',
}
INTERVALS = ("1m", "5m", "15m", "1h")


def dashboards() -> dict[str, Json]:
    """Return each dashboard as Grafana reads it, by its uid."""
    source = tomllib.loads((HERE / "dashboards.toml").read_text(encoding="utf-8"))["dashboard"]
    titles = {one["uid"]: one["title"] for one in source}
    return {one["uid"]: _dashboard(one, titles) for one in source}


def text_of(dashboard: Json) -> str:
    """Return what is committed: two runs give the same text."""
    return json.dumps(dashboard, indent=2) + "\n"


def _dashboard(source: Json, titles: dict[str, str]) -> Json:
    variables = ["namespace", "instance", *source.get("variables", [])]
    return {
        "uid": source["uid"],
        "title": source["title"],
        "description": source["description"],
        "tags": ["birthday-scheduler"],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "utc",
        "annotations": {"list": [_alert_annotation("critical", "red"), _alert_annotation("warning", "yellow")]},
        "links": [_link(uid, titles[uid]) for uid in source["links"]],
        "templating": {"list": [*(_variable(name) for name in variables), _interval()]},
        "panels": _panels(source["panel"]),
    }


def _alert_annotation(severity: str, colour: str) -> Json:
    return {
        "name": f"{severity.capitalize()} alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": colour,
        "expr": f'ALERTS{{alertstate="firing", severity="{severity}", namespace=~"$namespace"}}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}",
    }


def _link(uid: str, title: str) -> Json:
    return {"type": "link", "title": title, "url": f"/d/{uid}", "includeVars": True, "keepTime": True}


def _variable(name: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": LABEL_VALUES[name], "refId": name},
        "definition": LABEL_VALUES[name],
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Not the alternatives that there are: this also matches where a target has no such label.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _interval() -> Json:
    return {
        "name": "interval",
        "type": "interval",
        "query": ",".join(INTERVALS),
        "options": [{"text": one, "value": one, "selected": one == "5m"} for one in INTERVALS],
        "current": {"text": "5m", "value": "5m"},
    }


def _panels(sources: list[Json]) -> list[Json]:
    """Place the panels from left to right, in rows as high as their highest panel."""
    panels: list[Json] = []
    x = y = row_height = 0
    for number, source in enumerate(sources, start=1):
        width, height = SIZES[source.get("kind", "timeseries")]
        if x + width > COLUMNS:
            x, y, row_height = 0, y + row_height, 0
        panels.append(_panel(number, source) | {"gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, row_height = x + width, max(row_height, height)
    return panels


def _panel(number: int, source: Json) -> Json:
    kind = source.get("kind", "timeseries")
    return {
        "id": number,
        "type": kind,
        "title": source["title"],
        "description": source.get("description", ""),
        "datasource": DATASOURCE,
        "targets": [_target(chr(ord("A") + index), query, kind) for index, query in enumerate(source["queries"])],
        "fieldConfig": {"defaults": _field(source, kind), "overrides": []},
        "options": _options(kind),
    }


def _target(ref: str, query: list[str], kind: str) -> Json:
    expression, legend = query
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "expr": expression.replace("$scope", SCOPE),
        "legendFormat": legend,
        "instant": kind != "timeseries",
        "range": kind == "timeseries",
    }


def _field(source: Json, kind: str) -> Json:
    steps = source.get("thresholds", [["green", 0]])
    field: Json = {
        "unit": source.get("unit", "short"),
        "thresholds": {
            "mode": "absolute",
            # The first colour holds from minus infinity.
            "steps": [{"color": steps[0][0], "value": None}]
            + [{"color": colour, "value": value} for colour, value in steps[1:]],
        },
        "mappings": [
            {"type": "value", "options": {value: {"text": text, "index": index}}}
            for index, (value, text) in enumerate(source.get("names", {}).items())
        ],
    }
    if kind == "timeseries":
        shown = "line" if "thresholds" in source else "off"
        field |= {"color": {"mode": "palette-classic"}, "custom": {"thresholdsStyle": {"mode": shown}}}
    return field


def _options(kind: str) -> Json:
    latest = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    match kind:
        case "stat":
            return latest | {"colorMode": "background", "graphMode": "none"}
        case "bargauge":
            return latest | {"orientation": "horizontal", "displayMode": "basic"}
        case _:
            return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}


if __name__ == "__main__":
    for uid, dashboard in dashboards().items():
        (OUTPUT / f"{uid}.json").write_text(text_of(dashboard), encoding="utf-8")
