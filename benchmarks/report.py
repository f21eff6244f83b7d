"""Write docs/performance.md and its plots from the results of a full run: ``python -m benchmarks.report [FILE]``.

The words are those of ``performance.template.md``; every figure comes from the results.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from string import Template
from textwrap import fill
from typing import Any

from benchmarks import history, plots
from benchmarks.measure import busy_words
from benchmarks.plots import Results
from birthday.scheduler.dispatcher import BATCH as DISPATCHER_BATCH
from birthday.worker.limits import BATCH as WORKER_BATCH

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PLOTS = DOCS / "performance"
RESULTS = PLOTS / "results.json"
SOAK = PLOTS / "soak.json"
PEERS = PLOTS / "peers.json"
RETENTION = PLOTS / "retention.json"
GIB = 1024**3
SIDES = ("ours", "the other side")


def main(arguments: Sequence[str]) -> None:
    """Write the page."""
    document = json.loads((Path(arguments[0]) if arguments else RESULTS).read_text())
    results: Results = document["results"]
    drawn = set(plots.draw_all(results, PLOTS))
    soak_minutes = "not measured"
    if SOAK.exists():
        samples = json.loads(SOAK.read_text())["results"]["soak"]["samples"]
        plots.soak(samples, PLOTS / "soak.svg")
        soak_minutes = f"{samples[-1]['seconds'] / 60:.0f} min"
        drawn.add("soak")
    runs = history.read(history.HISTORY)
    if runs:
        plots.history(runs[-10:], PLOTS / "history.svg")
        drawn.add("history")
    past: Results = json.loads(RETENTION.read_text())["results"] if RETENTION.exists() else {}
    page = Template((HERE / "performance.template.md").read_text()).substitute(
        taken_on=document["taken_on"],
        note=fill(document.get("note", "One run measured everything but the soak."), 100),
        soak_minutes=soak_minutes,
        machine=table(("what", "which"), document["machine"].items()),
        ratios=ratios(results),
        busy=busy(results),
        waiting=waiting(results),
        costs=costs(results),
        **peers(),
        retention=retention(past),
        retention_ratios=ratios(past),
        waves=waves(results),
        population=population(results),
        storage=storage(results),
        hundred_million=hundred_million(results),
        **{name.replace("-", "_"): plot(name, drawn) for name in PLOT_TITLES},
    )
    (DOCS / "performance.md").write_text(page)


PLOT_TITLES = {
    "worker-throughput": "Worker throughput by concurrency",
    "burst-lateness": "Lateness of a burst",
    "planner-cost": "Planner cost by users",
    "api-latency": "API latency by load",
    "soak": "What a soak has watched",
    "history": "Ratios of full runs",
}


def peers() -> dict[str, str]:
    """Return what the last comparison with peers came to, and when it was."""
    document = json.loads(PEERS.read_text()) if PEERS.exists() else {}
    results: Results = document.get("results", {})
    taken_on = document.get("taken_on", "no day yet")
    return {"peers_taken_on": taken_on, "peers": ratios(results), "peers_costs": costs(results)}


def plot(name: str, drawn: set[str]) -> str:
    """Return the line that shows a plot, or says that this run has not drawn it."""
    title = PLOT_TITLES[name]
    return f"![{title}](performance/{name}.svg)" if name in drawn else f"({title}: not measured in this run.)"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def figures(results: Results) -> list[dict[str, Any]]:
    """Return all figures that are judged."""
    return [figure for result in results.values() for figure in result.get("figures", [])]


def ratios(results: Results) -> str:
    """Return the table of ratios: what is judged."""
    rows = []
    for figure in figures(results):
        low, high = figure["quartiles"]
        sign, unit = ("≤" if figure["at_most"] else "≥"), figure["ratio_unit"]
        absolute = f"{figure['ours']:,.4g} {figure['unit']}"
        if not unit:
            absolute += f" of {figure['limit']:,.4g}"
        ratio = f"**{figure['ratio']:.2f}**{' ' if unit else ''}{unit}"
        if figure.get("too_busy"):
            ratio = f"not measured: {busy_words(figure['too_busy'])}"
        row = (figure["name"], ratio, f"{low:.2f} to {high:.2f}", f"{sign} {figure['floor']:g}", f"{figure['goal']:g}")
        rows.append((*row, absolute))
    head = ("what", "median", "quartiles", "floor", "goal", "absolute, of this run")
    return table(head, rows) if rows else "(Not measured in this run.)"


def busy(results: Results) -> str:
    """Return how busy each process was, where it was read."""
    rows = [(figure["name"], *map(busy_words, figure["busy"])) for figure in figures(results) if "busy" in figure]
    return table(("what", *SIDES), rows) if rows else "(Not measured in this run.)"


def waiting(results: Results) -> str:
    """Return how busy a worker is, by what it has to wait for."""
    rows = [
        (
            f"{case['service_ms']:.0f} ms",
            f"{case['flush_ms']:.0f} ms",
            *(f"{100 * median(shares):.0f} %" for shares in (case["busy"], case["without_a_core"])),
        )
        for case in results.get("busy", {}).get("by_wait", [])
    ]
    head = (
        "the service takes",
        "a statement takes longer by",
        "the worker's share of a core",
        "how much of the time it waits for one",
    )
    return table(head, rows) if rows else "(Not measured in this run.)"


def costs(results: Results) -> str:
    """Return what a message or a request costs, of both sides of each comparison by rate."""
    rows = []
    for figure in figures(results):
        if figure["unit"] in {"messages/s", "jobs/s", "requests/s"} and "microseconds" in figure:
            for side, taken, wal in zip(SIDES, figure["microseconds"], figure["wal_bytes"], strict=True):
                if taken:
                    each = ", ".join(f"{name} {microseconds:.0f}" for name, microseconds in taken.items())
                    rate = f"{1e6 / sum(taken.values()):,.0f}"
                    rows.append((figure["name"], side, rate, each, f"{wal:,.0f}" if wal else ""))
    head = ("what", "side", "for a second of a processor", "microseconds each", "bytes of WAL each")
    return table(head, rows) if rows else "(Not measured in this run.)"


def waves(results: Results) -> str:
    """Return the table of waves."""
    rows = [
        (
            wave["workers"],
            f"{wave['service_ms']:.0f} ms",
            f"{wave['last_seconds']:.1f} s",
            f"{wave['p50_seconds']:.1f} s",
            f"{wave['p99_seconds']:.1f} s",
            f"{100 * wave['on_time_share']:.1f} %",
            f"{wave['rate']:,.0f}/s",
            f"{wave['lag_p99_ms']['worker']:.0f} / {wave['lag_p99_ms']['scheduler']:.0f} ms",
            f"{wave['resident_mib']['worker']:.0f} / {wave['resident_mib']['scheduler']:.0f} MiB",
        )
        for wave in results.get("wave", {}).get("waves", [])
    ]
    head = ("workers", "service", "last", "p50", "p99", "on time", "rate", "lag p99, worker / scheduler", "memory")
    return table(head, rows) if rows else "(Not measured in this run.)"


def population(results: Results) -> str:
    """Return what ticks, pages and retention cost by the number of users."""
    rows = [
        (
            f"{step['users']:,}",
            *(f"{step[day]['planned']:,} in {step[day]['seconds']:.2f} s" for day in ("ordinary", "new_year")),
            f"{step['ordinary']['empty_ms']:.1f} ms",
            " / ".join(f"{milliseconds:.1f}" for milliseconds in step["pages_ms"].values()) + " ms",
            f"{step['removed_per_second']:,.0f}/s",
        )
        for step in results.get("population", {}).get("steps", [])
    ]
    head = ("users", "four ordinary days", "four days around New Year", "nothing to plan", "a page", "retention")
    return table(head, rows) if rows else "(Not measured in this run.)"


def storage(results: Results) -> str:
    """Return what the largest population takes on disk."""
    if "population" not in results:
        return "(Not measured in this run.)"
    step = results["population"]["steps"][-1]
    messages = step["new_year"]["planned"]
    rows = []
    for name, size in step["bytes"].items():
        of_users = name.startswith("users")
        row = (name, f"{size / 1024**2:,.0f} MiB")
        rows.append((*row, f"{size / (step['users'] if of_users else messages):,.0f} bytes a {_kind(name)}"))
    return table(("table or index", f"with {step['users']:,} users", "each"), rows)


def _kind(name: str) -> str:
    return "user" if name.startswith("users") else "message"


def retention(results: Results) -> str:
    """Return what a message costs the database server when it is delivered, and when it is removed."""
    if "retention" not in results:
        return "(Not measured in this run.)"
    spent = results["retention"]["costs"]
    rows = [
        (
            name,
            *(f"{spent[step][figure]:,.0f}{unit}" for step in ("delivery", "removal")),
            f"{100 * spent['removal'][figure] / spent['delivery'][figure]:.0f} %",
            f"{spent['vacuum'][figure] / scale:,.1f} {large}",
        )
        for name, figure, unit, scale, large in (
            ("processor time", "cpu_us", " µs", 1e6, "s"),
            ("WAL", "wal_bytes", " bytes", 1024**2, "MiB"),
            ("pages looked at", "buffers", "", 1e6, "million"),
        )
    ]
    return table(("of the database server", "a delivery", "a removal", "share", "a vacuum of all"), rows)


def hundred_million(results: Results) -> str:
    """Return what a hundred million users would take, by what was measured."""
    if "population" not in results or "wave" not in results:
        return "(Not measured in this run.)"
    users = 100_000_000
    step, wave = results["population"]["steps"][-1], results["wave"]["waves"][0]
    of_users = sum(size for name, size in step["bytes"].items() if name.startswith("users")) / step["users"]
    of_messages = sum(size for name, size in step["bytes"].items() if name.startswith("message")) / max(
        step["new_year"]["planned"], 1
    )
    daily, largest_day = users / 365, users * 0.0275
    largest_minute = largest_day * 0.25
    kept = daily * 90
    rate = wave["rate"]
    wanted = largest_minute / 60
    rows: list[tuple[str, str, str]] = [
        ("users and their indexes", f"{users * of_users / GIB:,.0f} GiB", f"{of_users:,.0f} bytes a user"),
        (
            "messages of 90 days",
            f"{kept * of_messages / GIB:,.0f} GiB",
            f"{kept:,.0f} messages, {of_messages:,.0f} bytes each with their indexes",
        ),
        ("messages on an ordinary day", f"{daily:,.0f}", f"{daily / 86400:,.0f} a second on average"),
        ("1 January", f"{largest_day:,.0f}", "2.75 % of all birthdays, as in the generated population"),
        (
            "its largest minute",
            f"{largest_minute:,.0f}",
            "a quarter of it at one instant: more than live in any one offset",
        ),
        (
            "worker machines so that all of that is on time",
            f"{wanted / rate:,.1f}",
            f"{wanted:,.0f} a second; a machine of the kind above, with everything on it, does {rate:,.0f}",
        ),
        (
            "until the last one with one such machine",
            f"{largest_minute / rate / 60:,.0f} min",
            "within the hour that follows: late, and within CATCH_UP_WINDOW by far",
        ),
        (
            "writes to the disk at that rate",
            f"{wanted * 4 * of_messages / 3 / 1024**2:,.0f} MiB/s",
            "four versions of each row (planned, queued, sending, delivered) with a third of their indexes",
        ),
        (
            "flushes at that rate",
            f"{wanted / WORKER_BATCH * 2 + wanted / DISPATCHER_BATCH:,.0f} IOPS",
            f"one for each {WORKER_BATCH} claimed, {WORKER_BATCH} settled and {DISPATCHER_BATCH} marked as queued",
        ),
        (
            "planning that day",
            f"{largest_day * step['new_year']['seconds'] / max(step['new_year']['planned'], 1):,.0f} s",
            "spread over the hours before, in one process",
        ),
    ]
    return table(("what", "how much", "why"), rows)


if __name__ == "__main__":
    main(sys.argv[1:])
