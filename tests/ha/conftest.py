"""The lab that the experiments share. They run in its network: what they ask and start is on the operator's host."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.ha.hosts import network, why_impossible
from tests.support.ha.lab import MEASURED, Lab


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the experiments have measured."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == MEASURED:
                terminalreporter.write_line(f"{report.nodeid.rpartition('/')[2]}: {value}")


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs run without coverage, which slows them down: end-to-end tests run the same code."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="module")
def running_lab() -> Iterator[Lab]:
    """Run all servers as long as there are experiments of the module."""
    reason = why_impossible()
    if reason is not None:
        pytest.skip(reason)
    with network() as hosts:
        lab = Lab(hosts)
        with lab.operator.entered():
            asyncio.run(lab.start())
        yield lab


@pytest.fixture
def lab(running_lab: Lab) -> Iterator[Lab]:
    """Put the test on the operator's host."""
    with running_lab.operator.entered():
        yield running_lab
