"""The curves of the report, as SVG that is the same for the same figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.targets import API_CREATE, API_READ, WORKER_BUSY, WORKER_POSTGRES, WORKER_RABBITMQ

Results = Mapping[str, Any]

mpl.use("svg")


def draw(path: Path, title: str, x: str, y: str, curves: Callable[[Axes], None]) -> None:
    """Write one plot. The text in it stays text, and nothing in it depends on when it was drawn."""
    with mpl.rc_context({"svg.hashsalt": "birthday", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.add_subplot()
        curves(axes)
        axes.set_title(title)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


def draw_all(results: Results, directory: Path) -> list[str]:
    """Draw what there are figures for, and return the names of the files."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, needs, plot in PLOTS:
        if needs(results):
            plot(results, directory / f"{name}.svg")
            drawn.append(name)
    return drawn


def throughput(results: Results, path: Path) -> None:
    """Worker throughput by concurrency."""
    series = results["worker_on_rabbitmq"]["by_concurrency"]

    def curves(axes: Axes) -> None:
        at = [int(concurrency) for concurrency in series]
        axes.plot(at, [pair[0] for pair in series.values()], "o-", label="worker")
        axes.plot(at, [pair[1] for pair in series.values()], "s--", label="bare HTTP client")
        axes.set_xscale("log", base=2)
        axes.set_xticks(at, [str(each) for each in at])
        axes.set_ylim(bottom=0)

    draw(path, "One worker process, quorum queue", "messages in flight", "messages per second", curves)


def lateness(results: Results, path: Path) -> None:
    """Lateness of a burst."""

    def curves(axes: Axes) -> None:
        for wave in results["wave"]["waves"]:
            if wave["workers"] in {1, 4}:
                label = f"{wave['workers']} workers, service of {wave['service_ms']:.0f} ms"
                axes.plot(wave["lateness_seconds"], range(len(wave["lateness_seconds"])), label=label)

    draw(path, "100,000 messages due at one instant", "seconds after the instant", "per cent delivered", curves)


def planner(results: Results, path: Path) -> None:
    """Planner cost by users."""

    def curves(axes: Axes) -> None:
        steps = results["population"]["steps"]
        users = [step["users"] for step in steps]
        axes.plot(users, [step["new_year"]["seconds"] for step in steps], "o-", label="four days around New Year")
        axes.plot(users, [step["ordinary"]["seconds"] for step in steps], "o-", label="four ordinary days")
        axes.plot(users, [step["ordinary"]["empty_ms"] / 1000 for step in steps], "s--", label="nothing to plan")
        axes.set_xscale("log")
        axes.set_yscale("log")

    draw(path, "One tick of the planner", "users", "seconds", curves)


def latency(results: Results, path: Path) -> None:
    """API latency by load."""
    at = [int(connections) for connections in results["create"]["by_load"]]

    def curves(axes: Axes) -> None:
        for kind in ("create", "read"):
            loads = results[kind]["by_load"]
            for server, line in (("ours", "o-"), ("plain", "s--")):
                label = f"{kind}, {'' if server == 'ours' else 'plain handler, '}p99"
                axes.plot(at, [load[server]["p99_ms"] for load in loads.values()], line, label=label)
        axes.set_xscale("log", base=4)
        axes.set_yscale("log")
        axes.set_xticks(at, [str(each) for each in at])

    draw(path, "API, one process", "requests in flight", "milliseconds", curves)


def soak(samples: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write what a soak has watched: each figure in per cent of where it began."""

    def curves(axes: Axes) -> None:
        at = [sample["seconds"] / 60 for sample in samples]
        for name in samples[0]:
            if name != "seconds" and samples[0][name]:
                axes.plot(at, [100 * sample[name] / samples[0][name] for sample in samples], label=name)

    draw(path, "Soak", "minutes", "per cent of the first minute", curves)


def history(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write what the ratios of full runs were, one after the other."""

    def curves(axes: Axes) -> None:
        for target in SHOWN:
            at = [place for place, run in enumerate(runs) if target.name in run["figures"]]
            if at:
                axes.plot(at, [runs[place]["figures"][target.name][0] for place in at], "o-", label=target.name)
        axes.set_xticks(range(len(runs)), [f"{run['taken_on']}\n{run['commit']}" for run in runs])
        axes.set_ylim(bottom=0)

    draw(path, "Ratios of full runs", "run", "ratio", curves)


SHOWN = (WORKER_RABBITMQ, WORKER_POSTGRES, WORKER_BUSY, API_CREATE, API_READ)
"""The figures whose history is drawn."""

PLOTS: Sequence[tuple[str, Callable[[Results], bool], Callable[[Results, Path], None]]] = (
    ("worker-throughput", lambda results: "by_concurrency" in results.get("worker_on_rabbitmq", {}), throughput),
    ("burst-lateness", lambda results: "wave" in results, lateness),
    ("planner-cost", lambda results: "population" in results, planner),
    ("api-latency", lambda results: all("by_load" in results.get(kind, {}) for kind in ("create", "read")), latency),
)
