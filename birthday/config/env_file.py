"""Files of ``NAME=value`` lines, and variables whose names look like a misspelt setting.

systemd (``EnvironmentFile=``) and Compose (``env_file:``) have different quoting rules for such files. Only lines that
both read alike are accepted, so that a command has the same settings as the service.
"""

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Final

from birthday.errors import ConfigurationError

_ASSIGNMENT: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*?)\s*")
_DOUBLE_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\$])*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_ALIKE: Final = 0.85
_OURS: Final = "BIRTHDAY_"
_OF_OTHERS: Final = ("OTEL_", "PG")
"""Prefixes of the variables that the OpenTelemetry SDK and libpq read. Some of them resemble ours."""


def parse_env_file(text: str, name: str) -> dict[str, str]:
    """Return the variables in the text of a file. If one is set twice, the last value counts.

    Raises:
        ConfigurationError: if a line is not accepted. The text has the file's ``name`` and the number of the line, but
            no value, because that may be secret.
    """
    variables = {}
    for number, line in enumerate(text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        try:
            variable, value = _parse_line(line)
        except ValueError as error:
            raise ConfigurationError(f"{name}, line {number}: {error}") from None
        variables[variable] = value
    return variables


def _parse_line(line: str) -> tuple[str, str]:
    if "\0" in line:
        raise ValueError("a line without a NUL character is accepted")
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        raise ValueError("NAME=value is accepted, or a comment that begins with #")
    variable, raw = match.groups()
    if raw.startswith("'"):
        value = raw[1:-1]
        if len(raw) < 2 or not raw.endswith("'") or "'" in value or value.endswith("\\"):
            raise ValueError(
                f"{variable}: a value in single quotes is accepted that ends the line, has no single quote in it and "
                "no backslash at its end"
            )
        return variable, value
    if raw.startswith('"'):
        quoted = _DOUBLE_QUOTED.fullmatch(raw)
        if quoted is None:
            raise ValueError(
                f"{variable}: a value in double quotes is accepted that ends the line and has no backslash in it "
                'except in \\", \\\\ and \\$'
            )
        _refuse_expansion(variable, re.sub(r"\\.", "", quoted[1]))
        return variable, _ESCAPED.sub(r"\1", quoted[1])
    if "\\" in raw:
        raise ValueError(
            f"{variable}: systemd and Compose read a backslash differently; put the value in single quotes"
        )
    if re.search(r"(^|\s)#", raw):
        raise ValueError(
            f"{variable}: ' #' is a comment to Compose and a part of the value to systemd; put the value in quotes, "
            "or the comment on a line of its own"
        )
    _refuse_expansion(variable, raw)
    return variable, raw


def _refuse_expansion(variable: str, value: str) -> None:
    if "$" in value:
        raise ValueError(
            f"{variable}: Compose replaces what follows a $, systemd does not; put the value in single quotes"
        )


def unknown_variables(names: Iterable[str], settings: Collection[str]) -> dict[str, str]:
    """Return those of ``names`` that look like a misspelt setting, each with the setting that may be meant."""
    known = {setting.upper() for setting in settings}
    found = {}
    for name in sorted(names):
        upper = name.upper()
        # NIX_SSL_CERT_FILE is a setting of somebody else, who took the same name.
        of_others = upper.startswith(_OF_OTHERS) or any(upper.endswith(f"_{setting}") for setting in known)
        if upper in known or (of_others and not upper.startswith(_OURS)):
            continue
        for candidate in (upper, upper.removeprefix(_OURS)):
            if alike := get_close_matches(candidate, known, n=1, cutoff=_ALIKE):
                found[name] = alike[0]
                break
    return found
