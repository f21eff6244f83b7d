"""The output of ``birthday migrate``: which migrations are applied, what a rollback loses, and what was done."""

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table

from birthday.store.migrations import Loss, Migration, MigrationState


def print_status(statuses: Sequence[MigrationState]) -> None:
    """Print a line for each migration, and what is to be done about those that wait."""
    table = Table("migration", "state", "applied at (UTC)", box=None)
    for one in statuses:
        applied_at = f"{one.applied_at:%Y-%m-%d %H:%M:%S}" if one.applied_at else "-"
        table.add_row(one.label, one.state, applied_at)
    Console().print(table)
    print_waiting(statuses)


def print_waiting(statuses: Sequence[MigrationState]) -> None:
    """Print what is to be done about each migration that waits."""
    for one in statuses:
        if one.advice:
            click.echo(f"{one.label} waits: {one.advice}")


def print_losses(labels: Sequence[str], losses: Sequence[Loss]) -> None:
    """Print on standard error what data is lost with each migration that would be undone."""
    for label in labels:
        lost = [f"{loss.count:,} {loss.what}" for loss in losses if loss.label == label]
        click.echo(f"undoing {label} loses {'; '.join(lost) or 'no data'}", err=True)


def print_changed(verb: str, changed: Sequence[Migration]) -> None:
    """Print which migrations were applied or undone."""
    for migration in changed:
        click.echo(f"{verb} {migration.label}")
    if not changed:
        click.echo(f"nothing to be {verb}")
