"""What it costs a worker to be scraped: the processor's time for a page, as a share of a core at the shipped interval.

A worker that is busy fills a core, so this is the share of its throughput that ``/metrics`` takes. Two throughputs,
with and without scrapes, would differ by less than they do by chance.
"""

import time

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_worker import fill
from benchmarks.measure import Comparison, compare, one
from benchmarks.message_service import MessageService
from benchmarks.processes import Program, birthday, fetch
from benchmarks.scale import Run, Scale
from benchmarks.targets import SCRAPE

EVERY_SECONDS = 15
"""As ``config/prometheus/prometheus.yml`` says; ``tests/unit/test_benchmark_rules.py`` compares."""
SCRAPES = 5
PAUSE_SECONDS = 1.05
"""Between two scrapes: a page that is asked for again within a second is not made anew."""
MESSAGES = 1000


def share(program: Program) -> float:
    """Return the per cent of a core that scrapes take, without what the process does in any case."""
    began, before = time.monotonic(), program.cpu_seconds()
    for _ in range(SCRAPES):
        fetch(f"{program.url}/metrics")
        time.sleep(PAUSE_SECONDS)
    scraped, seconds = program.cpu_seconds() - before, time.monotonic() - began
    before = program.cpu_seconds()
    time.sleep(seconds)
    idle = program.cpu_seconds() - before
    return 100 * (scraped - idle) / SCRAPES / EVERY_SECONDS


def test_scrape(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, service: MessageService, database_url: str
) -> None:
    """Being watched takes next to nothing from a worker, whose page has all the series that deliveries bring."""
    run(fill(database_url, None, MESSAGES))
    with birthday("worker", DATABASE_URL=database_url, MESSAGE_SERVICE_URL=service.url) as program:
        service.wait_for(MESSAGES)
        # Each round mostly waits, and the figure is far from its floor.
        rounds = scale.rounds if scale.full else 1
        compare(benchmark, Comparison(SCRAPE, "%"), lambda: share(program), one, rounds)
