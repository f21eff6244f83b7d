"""The command ``birthday requeue``: send messages again that count as delivered but reached nobody."""

import sys
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import click
import structlog

from birthday.cli.command import errors, require_terminal
from birthday.cli.database import connection_for_long, database_settings, operator, pool_and_broker, run
from birthday.cli.render.dead_letters import many
from birthday.cli.render.progress import Bar
from birthday.cli.values import Instant
from birthday.config import Settings
from birthday.core.message import Status
from birthday.operations.clock_guard import require_right_clock
from birthday.operations.dead_letters.requeue import requeue_many
from birthday.store.failed import find_delivered

log = structlog.get_logger()


@click.command()
@click.option(
    "--delivered-from",
    required=True,
    metavar="INSTANT",
    type=Instant(),
    help="First instant, in UTC or with an offset.",
)
@click.option(
    "--delivered-to", required=True, metavar="INSTANT", type=Instant(), help="End; this instant is not included."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def requeue(delivered_from: datetime, delivered_to: datetime, *, yes: bool) -> None:
    """Send messages again that were only printed.

    Greetings that CHANNEL=console printed count as delivered. Each message keeps its Idempotency-Key: a message service
    that remembers keys sends nothing twice, any other greets again. The command prints the number and asks; without a
    terminal it needs --yes. For failed messages use 'birthday dlq requeue'.
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
            require_terminal("requeue asks before it greets anybody again, and there is no terminal")
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
            by=operator().name,
        )
        requeued = run(_requeue(settings, ids))
    click.echo(f"{requeued:,} of {many(len(ids), 'delivered message')} requeued: they are greeted again")


async def _find(settings: Settings, delivered_from: datetime, delivered_to: datetime) -> list[UUID]:
    async with connection_for_long(settings) as connection:
        return await find_delivered(connection, delivered_from, delivered_to)


async def _requeue(settings: Settings, ids: Sequence[UUID]) -> int:
    async with pool_and_broker(settings) as (pool, broker, clock):
        await require_right_clock(pool, clock)
        with Bar("requeued", len(ids), sys.stderr) as bar:
            await requeue_many(pool, broker, ids, clock, operator(), bar.count, status=Status.DELIVERED)
    return bar.done
