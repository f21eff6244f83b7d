"""The commands ``birthday templates``: what is said, to whom, in which language."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import orjson

from birthday.channels import Delivered
from birthday.cli.command import errors
from birthday.cli.database import checked_pool, database_settings, operator, run
from birthday.cli.render.templates import Progress, print_active, print_published, print_said, print_source
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.core.address import parse_address
from birthday.core.document import validate
from birthday.core.template import DEFAULT, Source, TemplateKey, parse_locale, parse_type
from birthday.errors import BirthdayError, FieldError, InvalidInputError
from birthday.operations.templates.compiling import Compiler
from birthday.operations.templates.files import read_directory, write_directory
from birthday.operations.templates.publishing import Author, activate_version, publish_template
from birthday.operations.templates.trying import Trial, Tried, preview, send_test
from birthday.operations.templates.values import KnownInput, site_of
from birthday.store.connection import borrow
from birthday.store.templates import Active, Version, list_active, read_version
from birthday.wiring.channel import open_channel
from birthday.wiring.names import channel_name

_CLOCK = SystemClock()


@click.group()
def templates() -> None:
    """Show, publish and try what messages say, by type and locale."""


@templates.command("list")
def list_() -> None:
    """List the active version of each template."""
    with errors():
        print_active(run(_list(database_settings())))


async def _list(settings: Settings) -> list[Active]:
    async with checked_pool(settings, _CLOCK) as pool, borrow(pool) as connection:
        return await list_active(connection)


@templates.command()
@click.argument("message_type", metavar="TYPE")
@click.argument("locale", default=DEFAULT)
@click.option("--version", type=click.IntRange(min=0), help="An older version.  [default: the active one]")
def show(message_type: str, locale: str, version: int | None) -> None:
    """Show the template of TYPE in LOCALE, or in 'default'."""
    with errors():
        print_source(run(_read(database_settings(), parse_type(message_type), parse_locale(locale), version)))


async def _read(settings: Settings, message_type: str, locale: str, version: int | None) -> Version:
    async with checked_pool(settings, _CLOCK) as pool, borrow(pool) as connection:
        return await read_version(connection, message_type, locale, version)


@templates.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Publish a template even if it fails for some users.")
def push(directory: Path, *, force: bool) -> None:
    """Publish the templates in DIRECTORY.

    It has the files TYPE/LOCALE/message.txt, subject.txt, body.html and payload.json; only message.txt is required.
    Each template is tried for every user whom it concerns. If it fails for some, it is not published, and the command
    prints their number and the first ids. An unchanged template makes no new version.
    """
    with errors():
        run(_push(database_settings(), read_directory(directory), force=force))


async def _push(settings: Settings, sources: dict[tuple[str, str], Source], *, force: bool) -> None:
    async with checked_pool(settings, _CLOCK) as pool, Compiler() as compiler:
        for key, source in sources.items():
            author = Author(operator(), _CLOCK.now())
            with Progress(key) as progress:
                try:
                    template = await compiler.compile(source, key[1])
                    published = await publish_template(
                        pool, key, template, author, site_of(settings), force=force, on_tried=progress.update
                    )
                except InvalidInputError as error:
                    first, *others = error.fields
                    named = FieldError("/".join(key) + first.pointer, first.detail)
                    raise InvalidInputError(named, *others) from None
            print_published(published)


@templates.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def pull(directory: Path) -> None:
    """Write the active templates to DIRECTORY, for 'push'."""
    with errors():
        sources = run(_pull(database_settings()))
        write_directory(directory, sources)
        for message_type, locale in sources:
            click.echo(f"{directory / message_type / locale}")


async def _pull(settings: Settings) -> dict[tuple[str, str], Source]:
    async with checked_pool(settings, _CLOCK) as pool, borrow(pool) as connection:
        active = [one.key for one in await list_active(connection)]
        return {
            (key.message_type, key.locale): (await read_version(connection, *key)).source
            for key in active
            if key.version or key[:2] == ("birthday", DEFAULT)
        }


def _for_whom(command: Callable[..., None]) -> Callable[..., None]:
    options: tuple[Callable[..., Any], ...] = (
        click.argument("message_type", metavar="TYPE"),
        click.option("--user", "user_id", metavar="ID", type=click.UUID, help="Use the data of this user."),
        click.option(
            "--with",
            "file",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Use this JSON object: any of firstName, lastName, email, locale, attributes, date, years.",
        ),
        click.option("--locale", help="In this locale.  [default: the nearest to the user's]"),
        click.option("--version", type=click.IntRange(min=0), help="An older version.  [default: the active one]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _trial(
    message_type: str, user_id: UUID | None, file: Path | None, locale: str | None, version: int | None
) -> Trial:
    if user_id is not None and file is not None:
        raise click.UsageError("--user and --with exclude each other")
    known = None
    if file is not None:
        try:
            known = validate(KnownInput, orjson.loads(file.read_bytes())).known()
        except ValueError as error:
            raise InvalidInputError(FieldError("", f"{file} is not JSON: {error}")) from None
    where = None if locale is None else parse_locale(locale)
    return Trial(parse_type(message_type), where, version, user_id, known)


@templates.command("preview")
@_for_whom
def preview_(
    message_type: str, user_id: UUID | None, file: Path | None, locale: str | None, version: int | None
) -> None:
    """Print what TYPE says to a user, or to a made-up person."""
    with errors():
        print_said(run(_preview(database_settings(), _trial(message_type, user_id, file, locale, version))))


async def _preview(settings: Settings, trial: Trial) -> Tried:
    async with checked_pool(settings, _CLOCK) as pool, Compiler() as compiler:
        return await preview(pool, compiler, trial, _CLOCK.now().date(), site_of(settings))


@templates.command()
@_for_whom
@click.option("--to", "address", required=True, metavar="ADDRESS", help="The recipient of the test.")
def test(
    message_type: str,
    user_id: UUID | None,
    file: Path | None,
    locale: str | None,
    version: int | None,
    address: str,
) -> None:
    """Send what TYPE says to ADDRESS, as a test.

    It goes through the real channel, and is marked with [Test]. Nothing is recorded.
    """
    with errors():
        try:
            to = parse_address(address)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--to") from None
        settings = database_settings()
        run(_test(settings, _trial(message_type, user_id, file, locale, version), to))
        click.echo(f"sent to {to}; the channel is {channel_name(settings)}")


async def _test(settings: Settings, trial: Trial, address: str) -> None:
    async with (
        checked_pool(settings, _CLOCK) as pool,
        open_channel(settings, _CLOCK, sys.stdout) as channel,
        Compiler() as compiler,
    ):
        outcome = await send_test(pool, channel, compiler, trial, address, _CLOCK.now(), site_of(settings))
    if not isinstance(outcome, Delivered):
        raise BirthdayError(f"the test was not delivered: {outcome.reason}")


@templates.command()
@click.argument("message_type", metavar="TYPE")
@click.argument("locale")
@click.argument("version", type=click.IntRange(min=0))
def activate(message_type: str, locale: str, version: int) -> None:
    """Make VERSION active, such as an older one.

    Version 0 of 'birthday' 'default' is the built-in text. In other locales, 0 withdraws the template: its users get
    the next nearest one.
    """
    with errors():
        key = TemplateKey(parse_type(message_type), parse_locale(locale), version)
        run(_activate(database_settings(), key))
        click.echo(f"{key.message_type}/{key.locale}: version {key.version} is active")


async def _activate(settings: Settings, key: TemplateKey) -> None:
    async with checked_pool(settings, _CLOCK) as pool:
        await activate_version(pool, key, Author(operator(), _CLOCK.now()))
