"""The commands ``birthday keys``: the API keys in the database."""

from datetime import timedelta

import click

from birthday.cli.command import errors
from birthday.cli.database import checked_pool, database_settings, operator, run
from birthday.cli.render.keys import keys_json, new_key_json, print_keys, print_new_key
from birthday.cli.values import Age
from birthday.clock import SystemClock
from birthday.config import Scope, Settings
from birthday.operations.keys import OVERLAP, NewKey, create_key, revoke_key, rotate_key
from birthday.store.connection import borrow
from birthday.store.keys import StoredKey, read_keys

_CLOCK = SystemClock()
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_wanted = click.argument("wanted", metavar="ID|NAME")


@click.group()
def keys() -> None:
    """Make, rotate and revoke API keys.

    They are stored in the database, as hashes. All processes follow within five seconds. Keys of API_KEYS work beside
    them, and are changed there.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--scope", required=True, type=click.Choice([scope.value for scope in Scope]), help="What the key may do."
)
@click.option("--expires", type=Age(), metavar="AGE", help="End after this time, such as 90d.  [default: never]")
@_json
def create(name: str, scope: str, expires: timedelta | None, *, as_json: bool) -> None:
    """Make a key for the client NAME, and print it: it is shown only now.

    The key is all of the standard output. 'read' may read users and messages, 'write' may also change users, and
    'admin' may do everything. Once a key exists, the API serves no one without a key, even if the key ends.
    """
    with errors():
        new = run(_create(database_settings(), name, Scope(scope), expires))
    _print_new(new, as_json=as_json)


async def _create(settings: Settings, name: str, scope: Scope, expires: timedelta | None) -> NewKey:
    async with checked_pool(settings, _CLOCK) as pool:
        now = _CLOCK.now()
        expires_at = None if expires is None else now + expires
        return await create_key(pool, name, scope, now, operator(), expires_at=expires_at, configured=settings.api_keys)


@keys.command("list")
@click.option("--all", "with_ended", is_flag=True, help="Also keys that have ended.")
@_json
def list_(*, with_ended: bool, as_json: bool) -> None:
    """List the keys, the oldest first, without their secrets.

    The id is the part of a key between the underscores. The last use is written at most once a minute.
    """
    with errors():
        stored = run(_list(database_settings()))
    now = _CLOCK.now()
    shown = [key for key in stored if with_ended or key.works(now)]
    if as_json:
        click.echo(keys_json(shown, now))
    else:
        print_keys(shown, now)


async def _list(settings: Settings) -> list[StoredKey]:
    async with checked_pool(settings, _CLOCK) as pool, borrow(pool) as connection:
        return await read_keys(connection)


@keys.command()
@_wanted
@click.option(
    "--overlap", type=Age(), default=OVERLAP, metavar="AGE", help="How long the old key still works.  [default: 24h]"
)
@_json
def rotate(wanted: str, overlap: timedelta, *, as_json: bool) -> None:
    """Make a new key for the client of a key, and print it: it is shown only now.

    The old key works beside it until the overlap is over; --overlap 0 ends it at once. 'birthday keys list' shows
    whether it is still used. A key that expires gets a successor that lives as long.
    """
    with errors():
        new = run(_rotate(database_settings(), wanted, overlap))
    _print_new(new, as_json=as_json)


async def _rotate(settings: Settings, wanted: str, overlap: timedelta) -> NewKey:
    async with checked_pool(settings, _CLOCK) as pool:
        return await rotate_key(pool, wanted, _CLOCK.now(), operator(), overlap)


@keys.command()
@_wanted
def revoke(wanted: str) -> None:
    """End a key at once: the one with this ID, or all of the client NAME."""
    with errors():
        revoked = run(_revoke(database_settings(), wanted))
    for key in revoked:
        click.echo(f"{key.name} ({key.id}) is revoked; no process accepts it in five seconds from now")


async def _revoke(settings: Settings, wanted: str) -> list[StoredKey]:
    async with checked_pool(settings, _CLOCK) as pool:
        return await revoke_key(pool, wanted, _CLOCK.now(), operator())


def _print_new(new: NewKey, *, as_json: bool) -> None:
    if as_json:
        click.echo(new_key_json(new, _CLOCK.now()))
    else:
        print_new_key(new)
