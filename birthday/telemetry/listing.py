"""The list of all metrics, docs/metrics.md: ``python -m birthday.telemetry.listing`` prints it."""

import sys

from birthday.telemetry.metrics import PREFIX, Entry, Metrics

_HEAD = f"""# Metrics

Every process serves these at `/metrics`, whatever its roles.
What only one role knows says so, or stays 0 elsewhere.
All names but `python_info` begin with `{PREFIX}_`, which is left out here.
A histogram has `_bucket`, `_sum` and `_count`.
Figures of the queue and the database are the same from every process: take `max` over instances, not `sum`.
They are absent while their source does not answer, and `collector_errors_total` counts that.

`config/prometheus` gives what the runbook calls `nodejs_*` those names too.
This file is written by `python -m birthday.telemetry.listing > docs/metrics.md`.

| name | type | labels | unit | meaning |
| --- | --- | --- | --- | --- |
"""


def listing(metrics: Metrics) -> str:
    """Return the list as Markdown, in order of name."""
    rows = [*metrics.entries, *_others(metrics)]
    lines = (
        f"| {row.name.removeprefix(f'{PREFIX}_')} | {row.kind} | {', '.join(row.labels)} | {row.unit} | {row.meaning} |"
        for row in sorted(rows, key=lambda row: row.name)
    )
    return _HEAD + "\n".join(lines) + "\n"


def _others(metrics: Metrics) -> list[Entry]:
    """Return the metrics of the collectors that are not in ``entries``, as they export them on this machine."""
    listed = {entry.name for entry in metrics.entries}
    entries = []
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name not in listed:
            labels = tuple(family.samples[0].labels) if family.samples else ()
            unit = next((unit for unit in ("seconds", "bytes") if unit in name.split("_")), "")
            entries.append(Entry(name, family.type, labels, unit, family.documentation))
    return entries


if __name__ == "__main__":
    sys.stdout.write(listing(Metrics()))
