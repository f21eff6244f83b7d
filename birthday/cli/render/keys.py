"""The output of ``birthday keys``."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from birthday.operations.keys import NewKey
from birthday.store.keys import StoredKey


def print_new_key(new: NewKey) -> None:
    """Write the key to standard output, alone, and what it is to standard error."""
    key = new.stored
    until = f"until {_instant(key.expires_at)} UTC" if key.expires_at else "until it is revoked"
    click.echo(f"birthday: the key {key.id} of {key.name}, scope {key.scope}, works {until}; keep it now:", err=True)
    click.echo(new.secret)


def print_keys(keys: Sequence[StoredKey], now: datetime) -> None:
    """Print a line for each key."""
    if not keys:
        click.echo("no keys")
        return
    table = Table("id", "name", "scope", "state", "created (UTC)", "by", "ends (UTC)", "last used (UTC)", box=None)
    for key in keys:
        ends = _instant(key.revoked_at or key.ends_at)
        created, used = _instant(key.created_at), _instant(key.last_used_at)
        table.add_row(key.id, key.name, key.scope, key.state(now), created, key.created_by, ends, used)
    Console(width=200).print(table, highlight=False)


def keys_json(keys: Sequence[StoredKey], now: datetime) -> str:
    """Return keys as JSON."""
    return json.dumps([_record(key, now) for key in keys], indent=2)


def new_key_json(new: NewKey, now: datetime) -> str:
    """Return a new key as JSON, with its secret as ``key``."""
    return json.dumps(_record(new.stored, now) | {"key": new.secret}, indent=2)


def _record(key: StoredKey, now: datetime) -> dict[str, Any]:
    instants = {
        "createdAt": key.created_at,
        "expiresAt": key.expires_at,
        "replacedAt": key.replaced_at,
        "revokedAt": key.revoked_at,
        "lastUsedAt": key.last_used_at,
    }
    shown = {name: at and at.isoformat(timespec="seconds").replace("+00:00", "Z") for name, at in instants.items()}
    facts = {"id": key.id, "name": key.name, "scope": key.scope, "state": key.state(now), "createdBy": key.created_by}
    return facts | shown


def _instant(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"
