"""The list of all settings, docs/settings.md: ``python -m birthday.cli.render.settings`` prints it."""

import sys

from birthday.config import documented_settings

_HEAD = """# Settings

Settings are environment variables, or lines of a file that `--env-file PATH` names.
That holds for the service and for every command.
The file is the one that systemd (`EnvironmentFile=`) or Compose (`env_file:`) reads.
What it sets wins over the environment.
A line that systemd and Compose would read differently is refused with its number.
Put a value with `$`, `\\` or ` #` in single quotes.
White space around a value does not count.
A variable that looks like a misspelt setting is a warning.

Durations are seconds or `500ms`, `30s`, `10m`, `48h`.
Startup fails with status 2 if a value is invalid; a line names the variable, the value and what is accepted.
`birthday check` prints what is in force.

This file is written by `python -m birthday.cli.render.settings > docs/settings.md`.

| variable | default | meaning |
| --- | --- | --- |
"""


def document() -> str:
    """Return the list as Markdown."""
    rows = (f"| {one.variable} | {one.default} | {one.meaning} |" for one in documented_settings())
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
