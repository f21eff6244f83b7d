"""The output of ``birthday status``, as text or JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, TextIO

import orjson
from rich.console import Console
from rich.table import Table

from birthday.operations.heartbeats import Differences, settings_hash
from birthday.operations.status import ServiceStatus
from birthday.store.processes import Seen

_WIDTH: Final = 200
_COMMIT_CHARACTERS: Final = 12


def print_status(status: ServiceStatus, database: str, out: TextIO) -> None:
    """Write one screen: a line for each process, then a line for each fact, such as pauses and overdue messages."""
    console = Console(file=out, width=_WIDTH)
    out.write(f"{'database':<11} {database}\n{'now':<11} {_instant(status.at)}\n\n")
    if status.running:
        table = Table("roles", "host", "pid", "version", "commit", "tzdata", "settings", "circuit", "seen", box=None)
        for one in status.running:
            table.add_row(*_cells(one))
        console.print(table, highlight=False)
    else:
        out.write("no process has reported within a minute\n")
    out.write("\n")
    out.writelines(f"{name:<11} {text}\n" for name, text in _lines(status))


def write_json(status: ServiceStatus, database: str, out: TextIO) -> None:
    """Write one JSON object with the same facts."""
    differing = status.differing
    members = {
        "database": database,
        "at": status.at,
        "processes": [_record(one) for one in status.running],
        "missingRoles": list(status.missing_roles),
        "differ": {
            "builds": len(differing.versions) > 1,
            "timezoneData": len(differing.tzdata) > 1,
            "settings": dict(differing.settings),
        },
        "paused": [
            {"messageType": one.message_type, "since": one.changed_at, "by": one.changed_by} for one in status.paused
        ],
        "overdue": {
            "messages": status.overdue.messages,
            "oldestDueAt": status.overdue.oldest_due_at,
            "oldestAgeSeconds": round(status.overdue.oldest_seconds(status.at), 3),
        },
        "failed": dict(status.failed),
        "plannedUntil": status.planned_until,
        "nextPeak": {"at": status.peak.at, "messages": status.peak.messages} if status.peak else None,
    }
    out.write(f"{orjson.dumps(members, option=orjson.OPT_UTC_Z).decode()}\n")


def describe_differences(differing: Differences) -> Iterator[tuple[str, str]]:
    """Yield the name and the different values of each thing that is not the same in all processes."""
    if len(differing.versions) > 1:
        yield "builds", f"DIFFER: {' and '.join(differing.versions)}"
    if len(differing.tzdata) > 1:
        yield "tzdata", f"DIFFER: {' and '.join(differing.tzdata)}; each process computes instants with its own"
    for name, values in differing.settings.items():
        yield "settings", f"DIFFER: {name} is {' and '.join(values)}"


def _lines(status: ServiceStatus) -> Iterator[tuple[str, str]]:
    yield from describe_differences(status.differing)
    if status.missing_roles:
        yield "roles", f"MISSING: no process has the role {' or '.join(status.missing_roles)}"
    for one in status.paused:
        yield "paused", f"{one.message_type}, since {_instant(one.changed_at)} by {one.changed_by}"
    if not status.paused:
        yield "paused", "nothing"
    seconds = status.overdue.oldest_seconds(status.at)
    overdue = f"{status.overdue.messages:,} messages, the oldest for {_duration(seconds)}"
    yield "overdue", overdue if status.overdue.messages else "nothing"
    yield from (("circuit", text) for text in _circuits(status))
    causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(status.failed.items()))
    yield "failed", f"{sum(status.failed.values()):,} messages: {causes}" if causes else "nothing"
    yield "planned", f"until {_instant(status.planned_until)}" if status.planned_until else "nothing yet"
    peak = status.peak
    yield "next peak", f"{_instant(peak.at)}: {peak.messages:,} messages" if peak else "nothing falls due within a day"


def _circuits(status: ServiceStatus) -> Iterator[str]:
    """Yield a text for each circuit that is not closed, or one text if all are closed."""
    workers = [one.process for one in status.running if one.process.circuit]
    troubled = [one for one in workers if one.circuit != "closed"]
    for one in troubled:
        reason = f": {one.circuit_reason}" if one.circuit_reason else ""
        yield f"{one.circuit} at {one.host}, pid {one.pid}{reason}"
    if not troubled:
        yield "closed" if workers else "no worker has reported"


def _cells(one: Seen) -> tuple[str, ...]:
    process = one.process
    return (
        process.roles,
        process.host,
        str(process.pid),
        process.version,
        process.commit[:_COMMIT_CHARACTERS],
        process.tzdata,
        settings_hash(process.settings),
        process.circuit or "-",
        f"{one.seconds_ago:.0f} s ago",
    )


def _record(one: Seen) -> dict[str, object]:
    process = one.process
    return {
        "roles": process.roles.split(","),
        "host": process.host,
        "pid": process.pid,
        "version": process.version,
        "commit": process.commit,
        "tzdata": process.tzdata,
        "settings": dict(process.settings),
        "settingsHash": settings_hash(process.settings),
        "circuit": process.circuit,
        "circuitReason": process.circuit_reason,
        "startedAt": process.started_at,
        "secondsAgo": round(one.seconds_ago, 3),
    }


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
