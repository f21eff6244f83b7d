"""The output of ``birthday templates``."""

import sys
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.table import Table

from birthday.core.template import PARTS
from birthday.operations.templates.files import FILES
from birthday.operations.templates.publishing import Published
from birthday.operations.templates.trying import Tried
from birthday.store.templates import Active, Version


def print_active(active: list[Active]) -> None:
    """Print a line for each template."""
    table = Table("type", "locale", "version", "active since (UTC)", "by", box=None)
    for one in active:
        since = f"{one.activated_at:%Y-%m-%d %H:%M:%S}" if one.activated_at else "-"
        version = str(one.key.version) if one.key.version else "0, built in"
        if not one.key.version and one.key.locale != "default":
            version = "withdrawn"
        table.add_row(one.key.message_type, one.key.locale, version, since, one.activated_by or "-")
    Console().print(table)


def print_source(version: Version) -> None:
    """Print a version and its parts, each below the name of its file."""
    key = version.key
    author = f", by {version.created_by} at {version.created_at:%Y-%m-%d %H:%M:%S} UTC" if version.created_at else ""
    state = "active" if version.is_active else "not active"
    click.echo(f"{key.message_type}/{key.locale}, version {key.version}, {state}{author}")
    for part in PARTS:
        _print_part(part, getattr(version.source, part))


def print_said(tried: Tried) -> None:
    """Print what a template says, each part below the name of its file."""
    if tried.key is not None:
        click.echo(f"{tried.key.message_type}/{tried.key.locale}, version {tried.key.version}")
    said = tried.said
    payload = None if said.payload is None else said.payload.decode()
    for part, text in zip(PARTS, (said.message, said.subject, said.html, payload), strict=True):
        _print_part(part, text)


def _print_part(part: str, text: str | None) -> None:
    if text is not None:
        click.echo(f"--- {FILES[part]}\n{text}")


def print_published(published: Published) -> None:
    """Print what became of one template of a push."""
    key = published.key
    name = f"{key.message_type}/{key.locale}"
    if not published.is_new:
        click.echo(f"{name}: unchanged, version {key.version}")
        return
    failing = f"; it fails for {published.failing:,}, whose messages will fail" if published.failing else ""
    click.echo(f"{name}: version {key.version} is active, tried for {published.tried:,} users{failing}")


class Progress:
    """The line on a terminal that says for how many users a template has been tried."""

    def __init__(self, key: tuple[str, str]) -> None:
        self._name = "/".join(key)
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    async def update(self, tried: int) -> None:
        """Show a number."""
        if self._shown:
            click.echo(f"\r{self._name}: tried for {tried:,} users", err=True, nl=False)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)
