"""What the benchmarks conclude from their figures."""

import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import yaml

from benchmarks import history
from benchmarks.bench_scrape import EVERY_SECONDS
from benchmarks.busy import Measured, Reading, Usage
from benchmarks.growth import grown
from benchmarks.lag import percentile_ms
from benchmarks.measure import Comparison, steady_rate
from benchmarks.population import people
from benchmarks.report import costs, ratios
from benchmarks.targets import EMPTY_TICK, SCRAPE, Target
from tests.support.monitoring import PROMETHEUS
from tests.support.product import parse

REQUESTS = Target("requests against a plain handler", 1.5, 2.5)


def compared(target: Target, unit: str, *figures: tuple[float, float]) -> Comparison:
    """Return a comparison that has measured nothing but these figures: ours, and the limit's."""
    took = Usage(1)
    return Comparison(target, unit, [(Measured(ours, took), Measured(limit, took)) for ours, limit in figures])


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    """One round that another process spoilt changes nothing."""
    comparison = compared(REQUESTS, "requests/s", (200, 100), (400, 200), (30, 300))
    assert comparison.ratios == [2, 2, 0.1]
    assert comparison.summary()["ratio"] == 2


def test_a_floor_is_a_ceiling_where_less_is_better() -> None:
    """More requests are better, longer ticks are worse; near is what noise explains."""
    assert REQUESTS.holds(1.5)
    assert not REQUESTS.holds(1.49)
    assert EMPTY_TICK.holds(2.0)
    assert not EMPTY_TICK.holds(2.1)
    assert EMPTY_TICK.is_near(2.5, 0.25)
    assert not EMPTY_TICK.is_near(3.0, 0.25)
    assert REQUESTS.is_near(1.3, 0.25)
    assert not REQUESTS.is_near(1.0, 0.25)


@pytest.mark.parametrize(
    ("ratios", "missed"),
    [
        ([1.3, 1.4, 1.45, 1.4, 1.35], True),
        ([1.3, 1.4, 1.6, 1.45, 1.55], False),
        ([1.6, 1.7, 1.6], False),
        ([1.4], True),
    ],
)
def test_a_figure_misses_its_floor_if_it_does_so_by_more_than_its_spread(ratios: list[float], *, missed: bool) -> None:
    """A quarter of the rounds on the right side says that the machine decides, not the program."""
    comparison = compared(REQUESTS, "requests/s", *((ratio, 1) for ratio in ratios))
    assert comparison.misses_floor is missed


def test_the_rate_leaves_the_first_tenth_out() -> None:
    """A client that needs long to connect is as fast as it is afterwards."""
    arrivals = [0.0, *(100 + number / 10 for number in range(1, 100))]
    assert steady_rate(arrivals) == pytest.approx(10, rel=0.02)


def test_scrapes_are_measured_at_the_interval_that_is_shipped() -> None:
    """What a scrape costs is shared out over the time between two."""
    shipped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    assert shipped["global"]["scrape_interval"] == f"{EVERY_SECONDS}s"
    assert f"every {EVERY_SECONDS} s" in SCRAPE.name


def test_a_result_that_is_missing_leaves_a_page_without_it() -> None:
    """A benchmark that is newer than the last full run has no row yet."""
    figure = compared(SCRAPE, "%", (0.1, 1)).summary()
    assert "scrape" not in ratios({})
    assert "| metrics: of a core, for a scrape every 15 s | **0.10** % |" in ratios({"scrape": {"figures": [figure]}})


@pytest.mark.parametrize(
    ("service", "complaint"), [(0.79, ""), (0.85, "not measured, because of nginx 85 % of a core")]
)
def test_a_limit_that_was_the_service_itself_is_no_limit(service: float, complaint: str) -> None:
    """What takes the messages of both sides must have time left: else both sides are as fast as it is."""
    comparison = Comparison(REQUESTS, "requests/s")
    for _ in range(3):
        comparison.add(Measured(150, Usage(2, {"worker": 1.9})), Measured(100, Usage(2, {"nginx": 2 * service})))
    assert comparison.complaint().partition(": ")[2] == complaint
    summary = comparison.summary()
    assert summary["busy"] == [{"worker": 0.95}, {"nginx": service}]
    assert ("not measured: nginx 85 %" in ratios({"requests": {"figures": [summary]}})) is bool(complaint)


def test_a_message_costs_what_all_take_that_do_not_only_measure() -> None:
    """The worker, the database and the broker make up the cost; the message service and the benchmark do not."""
    took = Usage(2, {"worker": 0.8, "PostgreSQL": 0.5, "nginx": 0.1, "runner": 0.1, "ended": 5}, count=10_000)
    comparison = Comparison(REQUESTS, "messages/s")
    comparison.add(Measured(5000, took, wal_bytes=1200), Measured(5000, Usage(2, {"nginx": 0.2}, count=10_000)))
    line = "| requests against a plain handler | ours | 7,692 | PostgreSQL 50, worker 80 | 1,200 |"
    assert costs({"worker": {"figures": [comparison.summary()]}}).splitlines()[2:] == [line]


def test_a_run_is_a_line_of_the_history(tmp_path: Path) -> None:
    """The file is JSON, and each run has one line of it. What was not measured has no figure."""
    good, busy = Comparison(REQUESTS, "requests/s"), Comparison(EMPTY_TICK, "ms")
    good.add(Measured(200.04, Usage(1)), Measured(100, Usage(1)))
    busy.add(Measured(1, Usage(1, {"nginx": 0.9})), Measured(1, Usage(1)))
    results = {"requests": {"figures": [good.summary(), busy.summary()]}, "wave": {"waves": []}}
    run = history.line({"taken_on": "2026-11-29", "machine": {"cores": "2"}, "results": results}, "0123abcd")
    assert run["figures"] == {REQUESTS.name: [2.0, 200.0, 100.0]}
    path = tmp_path / "history.json"
    history.append(run, path)
    history.append(run | {"commit": "4567cdef"}, path)
    assert [each["commit"] for each in history.read(path)] == ["0123abcd", "4567cdef"]
    assert len(path.read_text().splitlines()) == 4


def test_a_process_stands_for_what_it_has_started() -> None:
    """The processor's time of its children counts, of those that have ended as well."""
    spin = "import time; began = time.process_time()\nwhile time.process_time() < began + 0.1: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}]); print(1, flush=True); input()"
    began = Reading.take()
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        usage = began.until(Reading.take(), count=100)
        process.communicate(b"\n")
    assert usage.processor["peer"] >= 0.1
    assert usage.busy()["peer"] == pytest.approx(usage.processor["peer"] / usage.seconds)
    assert usage.microseconds()["peer"] == pytest.approx(usage.processor["peer"] * 1e4)


def test_a_percentile_is_of_what_came_in_between() -> None:
    """What a histogram held before does not count, and within a bucket it is interpolated."""
    before = {0.01: 1000.0, 0.1: 1000.0, float("inf"): 1000.0}
    after = {0.01: 1050.0, 0.1: 1100.0, float("inf"): 1100.0}
    assert percentile_ms(before, after, 0.5) == pytest.approx(10)
    assert percentile_ms(before, after, 0.75) == pytest.approx(55)
    assert percentile_ms(after, after, 0.99) == 0


def test_a_soak_complains_of_what_grows_and_of_nothing_else() -> None:
    """A warm-up is no growth, and neither is a little noise."""
    held = chain([50.0, 80.0], [100.0, 101.0], [99.0, 130.0])
    steady = [{"memory of worker": 100.0, "files of api": 20.0, "lag of api": 2.0, "creates/s": 5.0} for _ in range(6)]
    for sample, memory in zip(steady, held, strict=True):
        sample["memory of scheduler"] = memory
    assert grown(steady) == ["memory of scheduler: from 100.5 to 114.5"]


def test_a_population_is_the_same_each_time_and_no_two_are_alike() -> None:
    """Ids and addresses are unique, ids are of version 7 and ascend from one thousand to the next."""
    created_at = parse("2026-01-01T00:00:00Z")
    crowd = list(people(3000, created_at))
    assert crowd == list(people(3000, created_at))
    assert len({person.id for person in crowd}) == len({person.email for person in crowd}) == 3000
    assert {(person.id.version, person.id.variant) for person in crowd} == {(7, "specified in RFC 4122")}
    assert max(person.id for person in crowd[:1000]) < min(person.id for person in crowd[1000:2000])
    assert {person.email for person in crowd}.isdisjoint(person.email for person in people(3000, created_at, seed=2))
