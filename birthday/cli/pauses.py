"""The commands ``birthday pause`` and ``birthday resume``: an operator stops sending, and starts it again."""

import click

from birthday.cli.command import errors
from birthday.cli.database import database_settings, operator, run
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.store.connection import borrow
from birthday.store.pauses import EVERY_OTHER, Pause, read_pauses, set_paused
from birthday.store.templates import read_types
from birthday.wiring.database import open_database


@click.command()
@click.argument("message_type", metavar="[TYPE]", required=False)
def pause(message_type: str | None) -> None:
    """Stop sending, everything or TYPE, until 'birthday resume'.

    All processes obey within five seconds, also after a restart. Sends in progress finish; the rest waits and uses no
    attempts. Planning continues, and messages later than CATCH_UP_WINDOW expire.
    """
    _switch(message_type, paused=True)


@click.command()
@click.argument("message_type", metavar="[TYPE]", required=False)
def resume(message_type: str | None) -> None:
    """Resume sending, everything or TYPE."""
    _switch(message_type, paused=False)


def _switch(message_type: str | None, *, paused: bool) -> None:
    """Pause or resume, and print what is paused afterwards."""
    with errors():
        pauses = run(_set_paused(database_settings(), message_type, paused=paused))
    for one in pauses:
        click.echo(f"{one.message_type} is paused since {one.changed_at:%Y-%m-%d %H:%M:%S} UTC by {one.changed_by}")
    if not pauses:
        click.echo("nothing is paused")


async def _set_paused(settings: Settings, message_type: str | None, *, paused: bool) -> list[Pause]:
    clock = SystemClock()
    async with open_database(settings, clock) as pool, borrow(pool) as connection:
        types = await read_types(connection)
        if message_type is not None and message_type not in types:
            accepted = ", ".join(types)
            raise click.BadParameter(f"'{message_type}' is no message type; accepted: {accepted}", param_hint="TYPE")
        wanted = [*types, EVERY_OTHER] if message_type is None else [message_type]
        async with connection.transaction():
            await set_paused(connection, wanted, paused=paused, now=clock.now(), by=operator())
        return [one for one in await read_pauses(connection) if one.is_paused and one.message_type != EVERY_OTHER]
