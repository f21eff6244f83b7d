"""The page that Prometheus reads: complete, in both formats, and without what is not known."""

import asyncio
import time

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from birthday.telemetry.exposition import expose
from birthday.telemetry.metrics import Metrics

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def a_busy_process() -> Metrics:
    """Return metrics with as many series as a process has that has served every route."""
    metrics = Metrics()
    for number in range(100):
        metrics.api_requests.labels("GET", f"/route/{number}", "200").inc()
        metrics.api_response_time.labels("GET", f"/route/{number}").observe(0.02)
    return metrics


async def test_nothing_is_lost_by_writing_it_in_pieces() -> None:
    """The page has what the library would have written at once, but for the whole bounds of buckets."""
    metrics = Metrics()
    page, content_type = await expose(metrics.registry, "")
    names = {family.name for family in parse_text(page.decode())}
    assert content_type.startswith("text/plain")
    assert names == {family.name for family in parse_text(generate_latest(metrics.registry).decode())}


async def test_openmetrics_is_one_document() -> None:
    """However many pieces there are, the end is marked once, at the end."""
    page, content_type = await expose(Metrics().registry, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    assert page.count(b"# EOF") == 1
    assert page.endswith(b"# EOF\n")
    families = list(parse_openmetrics(page.decode()))  # type: ignore[no-untyped-call] # it has no annotations
    assert len(families) > 60


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_whole_bounds_are_written_as_the_runbook_asks_for_them(accept: str) -> None:
    """``le="2"`` finds the bucket of two seconds: Prometheus 2 compares text. Other bounds stay as they are."""
    metrics = Metrics()
    metrics.api_response_time.labels("GET", "/users").observe(1.5)
    page = (await expose(metrics.registry, accept))[0].decode()
    assert 'api_response_time_bucket{le="2",method="GET",path="/users"} 1.0' in page
    assert 'api_response_time_bucket{le="0.25",method="GET",path="/users"} 0.0' in page
    assert 'le="2.0"' not in page


async def test_a_figure_without_a_value_is_a_gap() -> None:
    """What is not known has no sample: an old value would pass for a new one, and 0 for an empty queue."""
    metrics = Metrics()
    assert metrics.registry.get_sample_value("birthday_scheduler_queue_depth") is None
    metrics.queue_depth.set(7)
    metrics.database_commits.set(8)
    assert metrics.registry.get_sample_value("birthday_scheduler_queue_depth") == 7
    assert metrics.registry.get_sample_value("birthday_scheduler_database_commits_total") == 8
    metrics.queue_depth.set(None)
    assert b"\nbirthday_scheduler_queue_depth " not in (await expose(metrics.registry, ""))[0]


async def test_a_scrape_lets_others_run() -> None:
    """While a long page is written, the event loop turns many times."""
    metrics = a_busy_process()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    started = time.perf_counter()
    page, _ = await expose(metrics.registry, "")
    seconds = time.perf_counter() - started
    counting.cancel()
    assert page.count(b"\n") > 1500
    assert turns >= min(2, seconds / 0.01)
