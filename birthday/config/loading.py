"""The environment of this process: settings are read from it, and a file can set variables in it.

No other module of ours reads or changes the environment.
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from birthday.config.env_file import parse_env_file, unknown_variables
from birthday.config.settings import Settings
from birthday.config.urls import mask_path, mask_url
from birthday.errors import ConfigurationError


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment; ``overrides`` (flags of the command line) win over it unless None.

    Raises:
        ConfigurationError: if values are invalid; a line for each has the variable, the value and what is accepted.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(error, given))) from None


def apply_env_file(path: Path) -> None:
    """Set the variables of a file in the environment of this process. They replace existing variables.

    The environment itself is changed because libraries such as the OpenTelemetry SDK read it, too.

    Raises:
        ConfigurationError: if the file cannot be read, or has a line that is not accepted.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--env-file {path}: {error.strerror}; a file that can be read is accepted") from None
    except UnicodeDecodeError as error:
        number = bytes(error.object).count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {number}: text in UTF-8 is accepted") from None
    os.environ.update(parse_env_file(text, str(path)))


def take_notify_socket() -> tuple[str | None, timedelta | None]:
    """Return NOTIFY_SOCKET, and the time limit of the watchdog in WATCHDOG_USEC; None for what systemd has not set.

    The variables are removed, because child processes inherit them: a PostgreSQL would tell systemd that it is ready.
    """
    address, limit, pid = (os.environ.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
    # A wrapper may have started this process, and be what the watchdog watches.
    watched = limit.isdecimal() and int(limit) > 0 and pid in {"", str(os.getpid())}
    return address or None, timedelta(microseconds=int(limit)) if watched else None


def misspelt_settings() -> dict[str, str]:
    """Return the environment variables that look like a misspelt setting, each with the setting that may be meant."""
    return unknown_variables(os.environ, Settings.model_fields)


def _explain(error: ValidationError, given: dict[str, object]) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        if problem["type"] == "default_factory_not_called":
            # A default that follows from other settings, and one of these is invalid.
            continue
        reason = _reason(problem["type"], problem["msg"], problem.get("ctx", {}))
        if not problem["loc"]:
            yield reason
            continue
        name = str(problem["loc"][0])
        yield f"{name.upper()}={_shown_value(name, given)}: {reason}"


def _shown_value(name: str, given: dict[str, object]) -> str:
    value = str(given.get(name) or os.environ.get(name.upper()) or os.environ.get(name) or "")
    if name in {"message_service_api_key", "message_service_signing_secret", "events_secret", "api_keys"}:
        return "***"
    if name == "message_service_path":
        return f"'{mask_path(value)}'"
    if not name.endswith(("_url", "_proxy")) or name == "no_proxy":
        return f"'{value}'"
    try:
        # A value without a scheme may still contain a password: user:password@host.
        return f"'{mask_url(value)}'" if "://" in value else "***"
    except ValueError:
        return "***"


def _reason(kind: str, message: str, context: dict[str, Any]) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in {"int_parsing", "int_from_float", "int_type"}:
        return "a whole number is accepted"
    if kind == "bool_parsing":
        return "true or false is accepted"
    if kind == "greater_than_equal":
        return f"a number of at least {context['ge']} is accepted"
    if kind == "less_than_equal":
        return f"a number of at most {context['le']} is accepted"
    if kind == "string_pattern_mismatch":
        return "the id of a commit or the name of a release is accepted: letters, digits and . _ + / -, 64 at most"
    if kind in {"literal_error", "enum"}:
        return f"{context['expected']} is accepted"
    return message
