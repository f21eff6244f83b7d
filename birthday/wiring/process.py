"""This process: its description for other processes, and the export of its traces."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO
from uuid import uuid4

from birthday.clock import Clock
from birthday.config import Settings, shared_settings
from birthday.core.zone import data_version
from birthday.store.processes import Process
from birthday.telemetry.build import find_commit, read_version
from birthday.telemetry.tracing import NO_TRACING, Tracing


def this_process(settings: Settings, clock: Clock) -> Process:
    """Describe this process: its roles, build, time-zone data and shared settings. Each call gives a new id."""
    return Process(
        uuid4(),
        socket.gethostname(),
        os.getpid(),
        settings.role_names,
        read_version(),
        find_commit(settings.birthday_commit),
        data_version(),
        shared_settings(settings),
        clock.now(),
    )


@asynccontextmanager
async def open_tracing(settings: Settings, console: TextIO) -> AsyncIterator[Tracing]:
    """Yield the tracing of OTEL_TRACES_EXPORTER; it does nothing if that is none."""
    if settings.otel_traces_exporter == "none":
        yield NO_TRACING
        return
    # Imported here because the extra may not be installed, and the import is slow.
    from birthday.telemetry import otel_export  # noqa: PLC0415

    queue = "postgresql" if settings.rabbitmq_url is None else "rabbitmq"
    release = read_version()
    async with otel_export.open_tracing(settings.otel_traces_exporter, queue, release, console) as tracing:
        yield tracing
