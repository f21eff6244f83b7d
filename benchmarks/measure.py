"""Two things side by side: run in turn, several rounds, and compared round by round.

Absolute figures of a shared machine move by tens of per cent from minute to minute; the ratio of two runs that follow
each other moves far less, and the median of several such ratios less again. So ratios are judged, absolute figures are
printed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.targets import Target

NOISE = 0.25
"""A median that misses its floor by no more than this share of it is measured again before it fails."""
ROUNDS_LIMIT = 3
"""How often the rounds may be repeated for that, in all."""


@dataclass(slots=True)
class Comparison:
    """The rounds of one benchmark: what was measured of ours and of the limit, in the same unit, pair by pair."""

    target: Target
    unit: str
    ours: list[float] = field(default_factory=list)
    limit: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours of the limit, round by round."""
        return [ours / limit for ours, limit in zip(self.ours, self.limit, strict=True)]

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which ratios half of the rounds lie."""
        low, _, high = quantiles(self.ratios, n=4, method="inclusive") if len(self.ratios) > 1 else self.ratios * 3
        return low, high

    @property
    def is_below(self) -> bool:
        """Say whether the figure misses its floor by more than its own spread: so does the better quartile."""
        return not self.target.holds(self.quartiles[0 if self.target.at_most else 1])

    def summary(self) -> dict[str, object]:
        """Return what is kept in the results."""
        ratios = self.ratios
        low, high = self.quartiles
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
            "ours": median(self.ours),
            "limit": median(self.limit),
        }


def compare(
    benchmark: BenchmarkFixture,
    comparison: Comparison,
    ours: Callable[[], float],
    limit: Callable[[], float],
    rounds: int,
) -> None:
    """Measure both in turn, tell each round, keep the result, and fail below the floor.

    Each follows the other, always: were the order to change, one would follow itself, with warm caches and idle disks.
    """
    compare_pairs(benchmark, comparison, lambda: (ours(), limit()), rounds)


def compare_pairs(
    benchmark: BenchmarkFixture, comparison: Comparison, measure: Callable[[], tuple[float, float]], rounds: int
) -> None:
    """Do the same with what measures both, ours first, in one go."""

    def one_round() -> None:
        ours, limit = measure()
        comparison.ours.append(ours)
        comparison.limit.append(limit)
        tell(f"  {comparison.target.name}: {ours / limit:.2f}  ({ours:,.5g} of {limit:,.5g} {comparison.unit})")

    benchmark.pedantic(one_round, rounds=rounds)
    judge(benchmark, comparison, one_round, rounds)


def judge(benchmark: BenchmarkFixture, comparison: Comparison, one_round: Callable[[], None], rounds: int) -> None:
    """Keep the median. One within noise of the floor is measured again first, with more rounds.

    Raises:
        AssertionError: if it is on the wrong side of the floor by more than its spread.
    """
    target = comparison.target
    while not target.holds(median(comparison.ratios)) and len(comparison.ratios) < ROUNDS_LIMIT * rounds:
        if not target.is_near(median(comparison.ratios), NOISE):
            break
        tell(f"  {target.name}: {median(comparison.ratios):.2f} is within noise of {target.floor}; once more")
        one_round()
    benchmark.extra_info["figure"] = comparison.summary()
    figure = median(comparison.ratios)
    side = "more" if target.at_most else "less"
    assert not comparison.is_below, (
        f"{target.name}: {figure:.3f}{target.unit} is {side} than {target.floor}{target.unit}"
    )


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
    return "\n".join(lines)


def tell(line: str) -> None:
    """Print progress as it is made."""
    print(line, flush=True)
