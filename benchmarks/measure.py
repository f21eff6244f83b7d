"""Two things side by side: run in turn, several rounds, and compared round by round.

Absolute figures of a shared machine move by tens of per cent from minute to minute; the ratio of two runs that follow
each other moves far less, and the median of several such ratios less again. So ratios are judged, absolute figures are
printed.

A figure counts only if what it was measured with was not the limit itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.busy import SERVERS, Measured, Reading, Usage, medians
from benchmarks.targets import Target

NOISE = 0.25
"""A median that misses its floor by no more than this share of it is measured again before it fails."""
ROUNDS_LIMIT = 3
"""How often the rounds may be repeated for that, in all."""
TOO_BUSY = 0.8
"""How much of a core a server of the benchmark may take: beyond, what is measured is the apparatus."""


@dataclass(slots=True)
class Comparison:
    """The rounds of one benchmark: what was measured of ours and of the limit, in the same unit, pair by pair."""

    target: Target
    unit: str
    rounds: list[tuple[Measured, Measured]] = field(default_factory=list)
    """All that was measured of the rounds: ours, and the limit's."""

    def add(self, ours: Measured, limit: Measured) -> None:
        """Add a round, and tell it."""
        self.rounds.append((ours, limit))
        tell(
            f"  {self.target.name}: {self.ratios[-1]:.2f}  ({ours.figure:,.5g} of {limit.figure:,.5g} {self.unit};"
            f" {busy_words(ours.usage.busy())} | {busy_words(limit.usage.busy())})"
        )

    @property
    def ratios(self) -> list[float]:
        """Ours of the limit, round by round."""
        return [ours.figure / limit.figure for ours, limit in self.rounds]

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which ratios half of the rounds lie."""
        low, _, high = quantiles(self.ratios, n=4, method="inclusive") if len(self.ratios) > 1 else self.ratios * 3
        return low, high

    @property
    def misses_floor(self) -> bool:
        """Say whether the figure misses its floor by more than its own spread: so does the better quartile."""
        return not self.target.holds(self.quartiles[0 if self.target.at_most else 1])

    @property
    def too_busy(self) -> dict[str, float]:
        """What of the apparatus was itself the limit, and how busy it was."""
        sides = [medians([each.usage.busy() for each in side]) for side in self._sides()]
        shares = {name: max(side.get(name, 0) for side in sides) for name in SERVERS}
        return {name: share for name, share in shares.items() if share > TOO_BUSY}

    def complaint(self) -> str:
        """Say why the figure fails: it misses its floor by more than its spread, or was not measured at all."""
        target, figure = self.target, median(self.ratios)
        if self.too_busy:
            return f"{target.name}: not measured, because of {busy_words(self.too_busy)} of a core"
        if self.misses_floor:
            side = "more" if target.at_most else "less"
            return f"{target.name}: {figure:.3f}{target.unit} is {side} than {target.floor}{target.unit}"
        return ""

    def summary(self) -> dict[str, object]:
        """Return what is kept in the results."""
        ratios, sides = self.ratios, self._sides()
        low, high = self.quartiles
        ours, limit = (median(each.figure for each in side) for side in sides)
        return {
            "name": self.target.name,
            "ratio": median(ratios),
            "quartiles": [low, high],
            "rounds": len(ratios),
            "floor": self.target.floor,
            "goal": self.target.goal,
            "at_most": self.target.at_most,
            "ratio_unit": self.target.unit,
            "unit": self.unit,
            "ours": ours,
            "limit": limit,
            "busy": [medians([each.usage.busy() for each in side]) for side in sides],
            "microseconds": [medians([each.usage.microseconds() for each in side]) for side in sides],
            "wal_bytes": [median(each.wal_bytes for each in side) for side in sides],
            "too_busy": self.too_busy,
        }

    def _sides(self) -> tuple[list[Measured], list[Measured]]:
        return [ours for ours, _ in self.rounds], [limit for _, limit in self.rounds]


def compare(
    benchmark: BenchmarkFixture,
    comparison: Comparison,
    ours: Callable[[], Measured | float],
    limit: Callable[[], Measured | float],
    rounds: int,
) -> None:
    """Measure both in turn, keep the result, and fail below the floor.

    Each follows the other, always: were the order to change, one would follow itself, with warm caches and idle disks.
    """

    def one_round() -> None:
        comparison.add(measured(ours), measured(limit))

    judge(benchmark, [comparison], one_round, rounds)


def one() -> Measured:
    """Stand for the limit where a figure is judged by itself."""
    return Measured(1.0, Usage(1.0))


def measured(call: Callable[[], Measured | float]) -> Measured:
    """Return what was measured. If that is a figure only, what all of it took goes with it."""
    began = Reading.take()
    result = call()
    return result if isinstance(result, Measured) else Measured(result, began.until(Reading.take()))


def judge(
    benchmark: BenchmarkFixture, comparisons: Sequence[Comparison], one_round: Callable[[], None], rounds: int
) -> None:
    """Run the rounds and keep the medians. If one is within noise of its floor, there are more rounds.

    Raises:
        AssertionError: if one is on the wrong side of its floor by more than its spread, or was not measured.
    """
    benchmark.pedantic(one_round, rounds=rounds)
    while len(comparisons[0].ratios) < ROUNDS_LIMIT * rounds:
        missed = [each for each in comparisons if not each.target.holds(median(each.ratios))]
        if not missed or not all(each.target.is_near(median(each.ratios), NOISE) for each in missed):
            break
        for each in missed:
            tell(f"  {each.target.name}: {median(each.ratios):.2f} is within noise of {each.target.floor}; once more")
        one_round()
    benchmark.extra_info["figures"] = [each.summary() for each in comparisons]
    complaints = list(filter(None, (each.complaint() for each in comparisons)))
    assert not complaints, "\n".join(complaints)


def steady_rate(arrivals: list[float]) -> float:
    """Return how many arrived a second, from the end of the first tenth on."""
    first = len(arrivals) // 10
    return (len(arrivals) - first) / (arrivals[-1] - arrivals[first])


def table(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return figures as lines of text: the ratio, its quartiles, floor and goal, and the absolute medians."""
    lines = []
    for figure in figures:
        low, high = figure["quartiles"]
        sign = "<=" if figure["at_most"] else ">="
        lines.append(
            f"{figure['name']:<68} {figure['ratio']:7.2f}{figure['ratio_unit']} [{low:.2f}-{high:.2f}]"
            f"  floor {sign} {figure['floor']:g}  goal {figure['goal']:g}"
            f"  ({figure['ours']:,.5g} of {figure['limit']:,.5g} {figure['unit']})"
        )
        if figure.get("too_busy"):
            lines[-1] += f"  NOT MEASURED: {busy_words(figure['too_busy'])}"
    return "\n".join(lines)


def busy_words(shares: Mapping[str, float]) -> str:
    """Return how busy each process was, in words, the busiest first."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in ordered)


def tell(line: str) -> None:
    """Print progress as it is made."""
    print(line, flush=True)
