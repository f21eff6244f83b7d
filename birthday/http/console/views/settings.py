"""Settings: what is in force, which processes run, and what they run on."""

import platform
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from aiohttp import web

from birthday.broker import QueueStats
from birthday.config import Scope, documented_settings, effective_settings
from birthday.config import Settings as Configured
from birthday.core.zone import data_version
from birthday.errors import UnavailableError
from birthday.http.console.rendering import page
from birthday.http.console.view import ROOT, View
from birthday.http.context import CONTEXT, ApiContext
from birthday.operations.heartbeats import RUNNING_SECONDS, differences, settings_hash
from birthday.store.audit import read_noted_rules
from birthday.store.connection import borrow
from birthday.store.migrations import Migration, State, load_migrations, status
from birthday.store.processes import read_processes
from birthday.telemetry.build import read_version

PATH: Final = f"{ROOT}/settings"
_LINK: Final = re.compile(r"\[([^]]+)\]\([^)]+\)")
SEEN_SECONDS: Final = 300.0
"""Processes that have reported within this time are shown."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """A setting as it is in force in this process; ``meaning`` has code between backquotes."""

    variable: str
    value: str
    default: str
    meaning: str
    differs: bool


async def settings(request: web.Request) -> web.StreamResponse:
    """Show the settings of this process, all processes, the schema and the servers."""
    context = request.app[CONTEXT]
    async with borrow(context.pool) as connection:
        seen = await read_processes(connection, SEEN_SECONDS)
        migrations = await status(connection, _migrations())
        rules, since = await read_noted_rules(connection)
        database = connection.get_server_version()
    running = [one.process for one in seen if one.seconds_ago <= RUNNING_SECONDS]
    shown = _settings(context.settings)
    return page(
        request,
        "settings.html",
        title="Settings",
        processes=[(one, settings_hash(one.process.settings), one.process in running) for one in seen],
        differing=differences(running),
        servers=[
            ("This program", read_version()),
            ("Python", platform.python_version()),
            ("Database", f"PostgreSQL {database.major}.{database.minor}"),
            ("Queue", await _queue(context)),
            ("Time-zone data", f"{data_version()} in this process"),
        ],
        rules=rules,
        since=since,
        applied=[one for one in migrations if one.applied_at is not None],
        expected=len(_migrations()),
        odd=[one for one in migrations if one.state is not State.APPLIED],
        differs=[one for one in shown if one.differs],
        others=[one for one in shown if not one.differs],
        keys=f"{PATH}/keys",
    )


async def _queue(context: ApiContext) -> str:
    try:
        stats: QueueStats = await context.broker.stats()
    except UnavailableError:
        return "away: it did not answer"
    return stats.server or "in the database"


@cache
def _migrations() -> list[Migration]:
    return load_migrations()


def _settings(configured: Configured) -> list[_Setting]:
    shown = []
    for one, documented in zip(effective_settings(configured), documented_settings(), strict=True):
        value = "none" if one.value == "-" else one.value
        differs = one.is_set and value != documented.default
        meaning = _LINK.sub(r"\1", documented.meaning)
        shown.append(_Setting(one.variable, value, documented.default, meaning, differs))
    return shown


VIEWS: Final = (View("GET", "/settings", Scope.READ, settings, nav="Settings"),)
