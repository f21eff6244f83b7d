"""Whether a worker with a full queue keeps its core busy, however long the message service and the database take.

A worker that waits could do more. What it waits for is a service that takes its time, or a database whose commits do.
"""

from itertools import product

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_worker import Race
from benchmarks.busy import Measured, Usage
from benchmarks.measure import Comparison, judge, one, tell
from benchmarks.message_service import SERVICE_SECONDS, MessageService
from benchmarks.scale import Run, Scale
from benchmarks.targets import WORKER_BUSY

FLUSH_SECONDS = (0.0, 0.002, 0.01)
"""How much longer a statement takes."""
CONCURRENCY = {0.0: 100, 0.005: 100, 0.05: 1000}
"""Messages in flight, by how long the service takes: enough of them to fill a core.

With 50 ms, 500 slots could send 10,000 a second at most. At 60 µs each, that is 0.6 of a core.
"""


def test_busy(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, service: MessageService, database_url: str, queue_url: str
) -> None:
    """The worker is busy with a fast service and a slow one, with a fast database and a slow one."""
    race = Race(run, service, database_url, queue_url, 2 * scale.messages)
    comparison = Comparison(WORKER_BUSY, "of a core")
    cases = [pair for pair in product(SERVICE_SECONDS, FLUSH_SECONDS) if scale.full or 0 in pair]
    shares: dict[tuple[float, float], list[tuple[float, float]]] = {case: [] for case in cases}

    def one_round() -> None:
        least = Measured(float("inf"), Usage(1))
        for service_seconds, flush_seconds in cases:
            measured = race.worker(CONCURRENCY[service_seconds], service_seconds, flush_seconds)
            usage = measured.usage
            share, starved = (seconds.get("worker", 0) / usage.seconds for seconds in (usage.processor, usage.starved))
            shares[service_seconds, flush_seconds].append((share, starved))
            tell(
                f"  service of {1000 * service_seconds:.0f} ms, {1000 * flush_seconds:.0f} ms more for a statement:"
                f" busy {100 * share:.0f} %, without a core {100 * starved:.0f} %, {measured.figure:,.0f} a second"
            )
            least = min(least, Measured(share, usage), key=lambda each: each.figure)
        comparison.add(least, one())

    try:
        judge(benchmark, [comparison], one_round, 1)
    finally:
        benchmark.extra_info["by_wait"] = [
            {
                "service_ms": 1000 * case[0],
                "flush_ms": 1000 * case[1],
                "busy": [share for share, _ in of_case],
                "without_a_core": [starved for _, starved in of_case],
            }
            for case, of_case in shares.items()
        ]
