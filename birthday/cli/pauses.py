"""The commands ``birthday pause`` and ``birthday resume``: an operator stops sending, and starts it again."""

import click

from birthday.cli.command import errors
from birthday.cli.database import database_settings, operator, run
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.errors import InvalidInputError
from birthday.operations.pauses import switch
from birthday.store.pauses import Pause
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
    async with open_database(settings, clock) as pool:
        try:
            return await switch(pool, message_type, paused=paused, now=clock.now(), by=operator())
        except InvalidInputError as error:
            raise click.BadParameter(error.fields[0].detail, param_hint="TYPE") from None
