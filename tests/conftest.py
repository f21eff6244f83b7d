"""What every test has: the event loop of production, and the servers that ``tests.support`` starts."""

import asyncio
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import uvloop

pytest_plugins = [
    "tests.support.brokers",
    "tests.support.certificates",
    "tests.support.collector",
    "tests.support.forward_proxy",
    "tests.support.mail_server",
    "tests.support.message_service",
    "tests.support.postgres",
    "tests.support.rabbitmq",
]


def pytest_configure() -> None:
    """Let SIGTERM end a run as Ctrl-C does: the servers that it started are stopped. Examples may take their time."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hypothesis.settings.register_profile("untimed", hypothesis.settings.default, deadline=None)
    hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test ``fast`` (no server but PostgreSQL, no whole program, nothing slow) or ``full``."""
    for item in items:
        item.add_marker(pytest.mark.fast if _is_fast(item) else pytest.mark.full)


def _is_fast(item: pytest.Item) -> bool:
    if Path(item.path).parent.name not in {"unit", "integration"} or item.get_closest_marker("slow"):
        return False
    # Tests that run on both queues ask for RabbitMQ at run time, by their parameter.
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
    return "rabbitmq" not in item.name and not any(name.startswith("rabbitmq") for name in fixtures)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run asynchronous tests and fixtures on uvloop, as the program does."""
    return {"uvloop": _new_event_loop}


class _Loop(uvloop.Loop):
    """The loop of uvloop, which also closes if a test has left something open.

    uvloop warns of it and then closes it. If that warning is an error, as in these tests, uvloop does not get that far:
    ``close`` waits for ever, in C, where no time limit of pytest ends it.
    """

    def close(self) -> None:
        """Close everything, then warn of what was open."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            super().close()
        for each in caught:
            warnings.warn(each.message, stacklevel=2)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    loop = _Loop()
    loop.set_exception_handler(_end_what_is_late)
    return loop


def _end_what_is_late(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Cancel everything once pytest-timeout has spoken: it raises in a signal handler, and uvloop only logs that."""
    loop.default_exception_handler(context)
    if isinstance(context.get("exception"), pytest.fail.Exception):
        for task in asyncio.all_tasks(loop):
            task.cancel()
