"""The command ``birthday requeue``: what counts as delivered and did not reach anybody is sent once more."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click
import structlog

from birthday.cli.command import database_settings, errors, operator, run
from birthday.cli.render.dead_letters import many, progress
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.operations.dead_letters.requeue import requeue_many
from birthday.store.connection import borrow
from birthday.store.delivered import find_delivered, requeue_delivered
from birthday.wiring.database import open_database
from birthday.wiring.queue import open_broker

log = structlog.get_logger()


class _Instant(click.ParamType[datetime]):
    """An instant in ISO 8601; UTC, unless it has an offset."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """Return the instant, or fail with what is accepted."""
        try:
            at = datetime.fromisoformat(value)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"'{value}': an instant such as 2026-11-28T09:00:00Z is accepted", param, ctx)


@click.command()
@click.option(
    "--delivered-from", required=True, metavar="INSTANT", type=_Instant(), help="First instant; UTC, or with an offset."
)
@click.option(
    "--delivered-to", required=True, metavar="INSTANT", type=_Instant(), help="The instant before which it ends."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def requeue(delivered_from: datetime, delivered_to: datetime, *, yes: bool) -> None:
    """Queue messages again that count as delivered, because they reached nobody: greetings that were only printed.

    Whoever did get one is greeted again. Each message keeps its Idempotency-Key, so a message service that remembers
    keys accepts those that it knows and sends them to nobody. It says how many there are, and asks; without a terminal
    it needs --yes. Messages that failed are requeued with 'birthday dlq requeue'.
    """
    if delivered_from >= delivered_to:
        raise click.BadParameter("it is not after --delivered-from", param_hint="--delivered-to")
    with errors():
        settings = database_settings()
        ids = run(_find(settings, delivered_from, delivered_to))
        span = f"from {delivered_from:%Y-%m-%d %H:%M:%S} to {delivered_to:%Y-%m-%d %H:%M:%S} UTC"
        if not ids:
            click.echo(f"no message was delivered {span}")
            return
        click.echo(f"{many(len(ids), 'message')} delivered {span}", err=True)
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(
                    "requeue asks before it greets anybody again, and there is no terminal: use --yes"
                )
            click.confirm(
                f"{many(len(ids), 'user')} will be greeted again, unless the message service remembers the "
                "Idempotency-Key. Requeue?",
                abort=True,
                err=True,
            )
        log.warning(
            "messages.requeuing_delivered",
            messages=len(ids),
            delivered_from=delivered_from.isoformat(),
            delivered_to=delivered_to.isoformat(),
            by=operator(),
        )
        requeued = run(_requeue(settings, ids))
    click.echo(f"{requeued:,} of {many(len(ids), 'delivered message')} requeued: they are greeted again")


async def _find(settings: Settings, delivered_from: datetime, delivered_to: datetime) -> list[UUID]:
    async with open_database(settings, SystemClock()) as pool, borrow(pool, None) as connection:
        return await find_delivered(connection, delivered_from, delivered_to)


async def _requeue(settings: Settings, ids: Sequence[UUID]) -> int:
    clock, requeued = SystemClock(), 0
    async with open_database(settings, clock) as pool, open_broker(settings, pool) as broker:
        with progress("requeued", len(ids), sys.stderr) as advance:

            def on_batch(batch: Sequence[UUID]) -> None:
                nonlocal requeued
                requeued += len(batch)
                advance(len(batch))

            await requeue_many(pool, broker, ids, clock, on_batch, restart=requeue_delivered)
    return requeued
