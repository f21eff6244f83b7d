"""What ``birthday check`` prints: settings, a line for each dependency, and the differences between processes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import click
from rich.console import Console
from rich.table import Column, Table

from birthday.cli.render.status import describe_differences
from birthday.config import ApiKey
from birthday.config.shown import EffectiveSetting
from birthday.operations.heartbeats import Differences
from birthday.operations.notices import limit_notices
from birthday.store.keys import SOON, StoredKey
from birthday.store.processes import Process
from birthday.store.statistics import Limits, Replication
from birthday.wiring.dependencies import Dependency

_WIDTH: Final = 200
"""Wider than most terminals, because a name or value that is cut off can be neither searched for nor copied."""


def print_settings(settings: Iterable[EffectiveSetting]) -> None:
    """Print a line for each setting."""
    table = Table("variable", Column("value", overflow="fold"), "set by", box=None)
    for line in settings:
        table.add_row(line.variable, line.value, "environment" if line.is_set else "default")
    Console(width=_WIDTH).print(table)
    click.echo()


def print_dependencies(misspelt: Mapping[str, str], dependencies: Sequence[Dependency]) -> None:
    """Print which variables look misspelt, and the state of each dependency."""
    for name, setting in misspelt.items():
        click.echo(f"warning    {name} is not a setting: did you mean {setting}?")
    for dependency in dependencies:
        step = f"next step: {dependency.next_step}" if dependency.next_step else "ok"
        state = step if dependency.error is None else f"FAILED: {dependency.error}"
        noted = f"; {dependency.note}" if dependency.note else ""
        click.echo(f"{dependency.name:<10} {dependency.where}  {state}{noted}")


def print_keys(configured: Collection[ApiKey], stored: Sequence[StoredKey] | None, now: datetime) -> None:
    """Print how many API keys there are, and which ones expire soon. None: the database could not be asked."""
    if stored is None:
        click.echo(f"{'keys':<10} {len(configured)} in API_KEYS; the database was not asked")
        return
    working = sum(key.works(now) for key in stored)
    soon = [f"{key.name} ({key.id})" for key in stored if key.expires_soon(now)]
    noted = f"; within {SOON.days} days expire {', '.join(soon)}: 'birthday keys rotate'" if soon else ""
    click.echo(f"{'keys':<10} {len(configured)} in API_KEYS, {working} in the database{noted}")


def print_replication(replication: Replication | None) -> None:
    """Print whether commits wait for a replica. None: the database could not be asked."""
    says = {
        Replication.NONE: "none",
        Replication.SYNCHRONOUS: "commits wait for one",
        Replication.ASYNCHRONOUS: (
            "commits do not wait for one: after a failover, deliveries may be forgotten and repeated under the same "
            "key, and new users lost; set synchronous_standby_names"
        ),
        Replication.UNKNOWN: "unknown whether there are any: GRANT pg_monitor to the role of DATABASE_URL",
        None: "the database was not asked",
    }
    click.echo(f"{'replicas':<10} {says[replication]}")


def print_limits(limits: Limits | None) -> None:
    """Print what others have limited or used up in the database, if they have."""
    for text in limit_notices(limits).values() if limits else ():
        click.echo(f"{'limits':<10} {text}")


def print_differences(here: Process, found: Differences) -> None:
    """Print the time-zone data if it is the same in all processes, and what differs between them."""
    if len(found.tzdata) == 1:
        click.echo(f"{'tzdata':<10} {here.tzdata}")
    for name, text in describe_differences(found):
        click.echo(f"{name:<10} {text}")
