"""The command ``birthday smoke``: whether a deployed installation works, asked over HTTP as its clients do."""

import sys
from urllib.parse import urlsplit

import click

from birthday.cli.command import errors
from birthday.cli.database import run
from birthday.clock import SystemClock
from birthday.operations.smoke import Finding
from birthday.operations.smoke import smoke as try_installation
from birthday.telemetry.build import read_version


@click.command()
@click.argument("url")
@click.option("--key", metavar="KEY", help="API key of the scope write or admin; - reads it from standard input.")
def smoke(url: str, key: str | None) -> None:
    """Try the installation at URL after a deployment, greeting nobody.

    It asks for health, versions and metrics. It makes a test user, whose birthday is half a year away, asks when the
    user would be greeted and why, and removes the user, also after Ctrl-C. With a key of the scope admin the user is
    erased, otherwise only deleted. The version must be that of this command. The exit status is 1 if something fails;
    its line says what to do.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise click.BadParameter(
            "the address of the API is accepted, such as https://api.example.com", param_hint="URL"
        )
    if key == "-":
        # The file may be that of curl -H @FILE.
        key = sys.stdin.readline().strip().removeprefix("Authorization:").strip().removeprefix("Bearer ").strip()
    if key is not None and not (key.isascii() and key.isprintable() and key):
        raise click.BadParameter("a key of printable ASCII characters is accepted", param_hint="--key")
    with errors():
        is_well = run(try_installation(url, key, read_version(), SystemClock().now(), _print))
    if not is_well:
        sys.exit(1)


def _print(finding: Finding) -> None:
    click.echo(f"{finding.name:<10} {f'FAILED: {finding.says}; {finding.todo}' if finding.todo else finding.says}")
    sys.stdout.flush()
