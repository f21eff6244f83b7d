"""``birthday`` without a command: run the service until it is stopped."""

import structlog

from birthday import service
from birthday.cli.database import run
from birthday.clock import SystemClock
from birthday.config import (
    Settings,
    check_channel,
    check_listener,
    load_settings,
    misspelt_settings,
    take_notify_socket,
)
from birthday.errors import ConfigurationError
from birthday.telemetry.logs import LogFile, configure_logs
from birthday.telemetry.systemd import Systemd
from birthday.wiring.database import lacks_database

log = structlog.get_logger()


def serve(role: str | None) -> int:
    """Run the service and return its exit status; ``role`` replaces ROLE unless it is None.

    Raises:
        BirthdayError: if it cannot start.
    """
    settings = load_settings(role=role)
    if lacks_database(settings):
        # Otherwise keys in the database count as well.
        check_listener(settings)
    check_channel(settings)
    logs = _open_logs(settings)
    for name, setting in misspelt_settings().items():
        log.warning("settings.unknown_variable", variable=name, did_you_mean=setting)
    return run(service.run(settings, SystemClock(), logs, Systemd(*take_notify_socket())))


def _open_logs(settings: Settings) -> LogFile:
    try:
        file = LogFile(settings.log_file)
    except OSError as error:
        raise ConfigurationError(
            f"LOG_FILE='{settings.log_file}': {error.strerror}; a file in a writable directory is accepted"
        ) from None
    configure_logs(settings.log_level, settings.log_format, file, settings.role_names)
    return file
